#!/usr/bin/env python3
"""20 steps of LoRA SFT with PEFT from adapters that begin as a part of the base, on the batches of lora_sft/tiny."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402

HERE = Path(__file__).resolve().parent
STEPS = 20
STARTS = {
    "pissa": {"init_lora_weights": "pissa", "r": 8, "lora_alpha": 16},
    "pissa_rslora": {"init_lora_weights": "pissa", "r": 4, "lora_alpha": 8, "use_rslora": True},
    "olora": {"init_lora_weights": "olora", "r": 4, "lora_alpha": 6},
}


def train(model, batches):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    steps = []
    model.train()
    for batch in batches:
        count = sum(label != -100 for labels in batch["labels"] for label in labels[1:])
        loss = 0.0
        for ids, labels in zip(batch["input_ids"], batch["labels"]):
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            part = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum") / count
            part.backward()
            loss += part.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        steps.append({"loss": loss, "grad_norm": grad_norm})
        optimizer.step()
        optimizer.zero_grad()
    return steps


def main():
    torch.set_num_threads(1)
    batches = json.loads((oracle.HERE / "lora_sft" / "tiny" / "steps.json").read_text())[:STEPS]
    rows = {}
    for name, options in STARTS.items():
        torch.manual_seed(0)
        model = get_peft_model(tiny.load(), LoraConfig(task_type="CAUSAL_LM", lora_dropout=0.0, target_modules="all-linear", **options))
        rows[name] = train(model, batches)
    oracle.write_json(HERE / "steps.json", {"options": STARTS, "steps": rows}, indent=0)
    oracle.write_versions(HERE)


main()
