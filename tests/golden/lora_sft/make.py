#!/usr/bin/env python3
"""make.py [tiny|smollm2 GGUF]: 50 optimisation steps of LoRA with PEFT and torch.optim.AdamW in float32, and smollm2 in float64, too."""

import json
import os
import random
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from save import save_adapter  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import get_linear_schedule_with_warmup  # noqa: E402

HERE = Path(__file__).resolve().parent
STEPS = 50
ROWS = oracle.HERE.parent.parent / "examples" / "extract" / "train.jsonl"


def train(model, batches, learning_rate, max_grad_norm):
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, STEPS)
    steps = []
    model.train()
    for batch in batches:
        count = sum(label != -100 for labels in batch["labels"] for label in labels[1:])
        loss = 0.0
        for ids, labels in zip(batch["input_ids"], batch["labels"]):  # each sequence alone: no padding
            logits = model(input_ids=torch.tensor([ids])).logits[0, :-1]
            part = torch.nn.functional.cross_entropy(logits, torch.tensor(labels[1:]), ignore_index=-100, reduction="sum") / count
            part.backward()
            loss += part.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, max_grad_norm).item()
        steps.append({**batch, "loss": loss, "grad_norm": grad_norm, "learning_rate": schedule.get_last_lr()[0]})
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    return steps


def adapted(base, config, seed, random_b):
    torch.manual_seed(seed)
    model = get_peft_model(base, config)
    if random_b:
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.data = 0.05 * torch.randn_like(p)
    return model


def tiny_run():
    rng = random.Random(5)
    batches = []
    for _ in range(10):  # each batch comes five times, so that the loss falls by what was learnt
        rows = [[rng.randrange(320) for _ in range(rng.randint(6, 24))] for _ in range(4)]
        labels = [[-100 if i < (k := rng.randint(0, len(r) - 3)) or rng.random() < 0.05 else t for i, t in enumerate(r)] for r in rows]
        batches.append({"input_ids": rows, "labels": [[-100] * (cut := rng.randint(0, 3)) + x[cut:] for x in labels]})
    model = adapted(tiny.load(), LoraConfig(r=8, lora_alpha=16, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"), 3, True)
    save_adapter(model, HERE / "tiny" / "initial_adapter")
    steps = train(model, batches * 5, 1e-3, 1.0)
    save_adapter(model, HERE / "tiny" / "final_adapter")
    oracle.write_rows(HERE / "tiny" / "steps.json", steps)


def smollm2_run(path):
    tokenizer = oracle.smollm2_transformers_tokenizer(path)
    rows = [json.loads(line) for line in ROWS.read_text(encoding="utf-8").splitlines()]
    encoded = []
    for row in rows:
        prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
        ids = tokenizer.apply_chat_template(row["prompt"] + row["completion"], return_dict=False)
        encoded.append((ids, [-100] * len(prompt) + ids[len(prompt):]))
    encoded = sorted(encoded, key=lambda e: len(e[0]))[:2 * STEPS]
    random.Random(6).shuffle(encoded)
    batches = [{"input_ids": [e[0] for e in encoded[i:i + 2]], "labels": [e[1] for e in encoded[i:i + 2]]} for i in range(0, 2 * STEPS, 2)]
    config = LoraConfig(r=4, lora_alpha=16, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = adapted(oracle.smollm2_model(path), config, 4, False)
    save_adapter(model, HERE / "smollm2" / "initial_adapter")
    oracle.write_rows(HERE / "smollm2" / "steps.json", train(model, batches, 1e-3, 1.0))
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        final = load_file(Path(scratch) / "adapter_model.safetensors")
    oracle.write_json(HERE / "smollm2" / "final_norms.json", {n: t.double().norm().item() for n, t in sorted(final.items())}, indent=0)
    # Two right float32 runs part by up to 3e-4 at this rate, and the bar is 1e-4: float64 says which is nearer.
    exact = train(adapted(oracle.smollm2_model(path), config, 4, False).double(), batches, 1e-3, 1.0)
    oracle.write_rows(HERE / "smollm2" / "steps_float64.json", [{"loss": s["loss"], "grad_norm": s["grad_norm"]} for s in exact])


torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
if sys.argv[1:2] == ["smollm2"]:
    smollm2_run(Path(sys.argv[2]))
else:
    tiny_run()
oracle.write_versions(HERE)
