#!/usr/bin/env python3
"""How far PyTorch's own bfloat16 is from float64 on every tiny model: the bar of FlashAttention's rule, by which another bfloat16 may be off by
twice that. Norms of the differences from each model's expected.safetensors."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)


def run(model, expected):
    """As tiny.run, with the loss of the logits in float32, as transformers computes it."""
    total, logits = 0, {}
    for number, (ids, labels) in enumerate(zip(expected["input_ids"], expected["labels"])):
        out = model(input_ids=torch.tensor([ids])).logits[0].float()
        total = total + torch.nn.functional.cross_entropy(out[:-1], torch.tensor(labels)[1:], ignore_index=-100, reduction="sum")
        logits[f"logits.{number}"] = out.detach()
    loss = total / expected["num_labels"]
    loss.backward()
    gradients = {name: p.grad.float() for name, p in model.named_parameters()}
    model_type = model.config.model_type
    return loss.item(), logits, tiny.separate_experts(gradients, model_type)


def main():
    rows = []
    for path in sorted(oracle.HERE.glob("tiny_*/**/expected.safetensors")):
        if not (path.parent / "config.json").exists():
            continue
        name = path.parent.relative_to(oracle.HERE).as_posix()
        expected, exact = json.loads((path.parent / "expected.json").read_text()), load_file(path)
        loss, logits, gradients = run(tiny.load_eager(AutoModelForCausalLM, path.parent).bfloat16().eval(), expected)
        of_logits = sum(float((logits[n] - exact[n]).double().square().sum()) for n in logits) ** 0.5
        of_gradients = {n: float((g - exact["grad." + n]).double().norm()) for n, g in gradients.items()}
        rows.append({"model": name, "loss": abs(loss - expected["loss"]), "logits": of_logits,
                     "gradients": {n: float(f"{e:.4g}") for n, e in of_gradients.items()}})
        print(name, loss, expected["loss"], of_logits)
    oracle.write_rows(HERE / "cases.json", rows)
    oracle.write_versions(HERE)


main()
