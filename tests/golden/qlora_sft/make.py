#!/usr/bin/env python3
"""50 optimisation steps of QLoRA with PEFT, bitsandbytes' nf4 weights and torch.optim.AdamW, computed in float32 on ../bitsandbytes/plain."""

import importlib.metadata
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parent / "lora_sft")]
import oracle  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from save import save_adapter  # noqa: E402
from transformers import AutoModelForCausalLM, get_linear_schedule_with_warmup  # noqa: E402

STEPS, VOCABULARY = 50, 96


def batches():
    rng = random.Random(8)
    result = []
    for _ in range(10):  # each batch comes five times, so that the loss falls by what was learnt
        rows = [[rng.randrange(VOCABULARY) for _ in range(rng.randint(6, 24))] for _ in range(4)]
        result.append({"input_ids": rows, "labels": [[-100] * (cut := rng.randint(0, len(r) - 3)) + r[cut:] for r in rows]})
    return result * 5


def main():
    torch.set_num_threads(1)
    base = AutoModelForCausalLM.from_pretrained(HERE.parent / "bitsandbytes" / "plain", device_map="cpu", dtype=torch.float32)
    torch.manual_seed(9)
    model = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"))
    assert sum(type(m).__name__ == "Linear4bit" for m in model.modules()) >= 14  # PEFT's own and the weights that they hold
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data = 0.05 * torch.randn_like(p)
    save_adapter(model, HERE / "initial_adapter")
    parameters = [p for p in model.parameters() if p.requires_grad]
    assert all(p.dtype == torch.float32 for p in parameters)
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    steps = []
    model.train()
    for batch in batches():
        count = sum(label != -100 for labels in batch["labels"] for label in labels[1:])
        loss = 0.0
        for ids, labels in zip(batch["input_ids"], batch["labels"]):  # each sequence alone: no padding
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            part = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum") / count
            part.backward()
            loss += part.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0).item()
        steps.append({**batch, "loss": loss, "grad_norm": grad_norm, "learning_rate": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    oracle.write_rows(HERE / "steps.json", steps)
    oracle.write_versions(HERE)
    with (HERE / "versions.txt").open("a") as versions:
        versions.write(f"bitsandbytes {importlib.metadata.version('bitsandbytes')}\n")


main()
