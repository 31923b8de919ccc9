#!/usr/bin/env python3
"""Two random Llamas as Hugging Face directories, with logits, loss and the gradient of every parameter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
IDS = tiny.sequences([5, 37, 70], seed=11)
torch.set_num_threads(1)


def labels_of(ids, number):
    """The middle sequence's first 20 tokens are a prompt; a label in the last one is left out."""
    labels = list(ids)
    if number == 1:
        labels[:20] = [-100] * 20
    if number == 2:
        labels[33] = -100
    return labels


def run(model, dtype):
    """Each sequence alone (batch 1, no padding); loss = sum over all valid shifted labels of all sequences ÷ their number."""
    model = model.to(dtype)
    total, count, logits = 0, 0, {}
    for number, ids in enumerate(IDS):
        out = model(input_ids=torch.tensor([ids])).logits[0]
        labels = torch.tensor(labels_of(ids, number))[1:]
        total = total + torch.nn.functional.cross_entropy(out[:-1], labels, ignore_index=-100, reduction="sum")
        count += int((labels != -100).sum())
        logits[f"logits.{number}"] = out.detach().float().contiguous()
    loss = total / count
    loss.backward()
    return loss.item(), count, logits, {n: p.grad.float().contiguous() for n, p in model.named_parameters()}


def main():
    for name, tied, seed in (("untied", False, 1), ("tied", True, 2)):
        folder = HERE / name
        tiny.random_llama(tied, seed).save_pretrained(folder)
        loss, count, logits, gradients = run(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), torch.float32)
        loss64, _, logits64, gradients64 = run(LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32), torch.float64)
        worst = max(float((gradients[n] - gradients64[n]).norm() / gradients64[n].norm()) for n in gradients)
        worst_logit = max(float((logits[n] - logits64[n]).abs().max()) for n in logits)
        save_file({**logits64, **{f"grad.{n}": g for n, g in gradients64.items()}}, folder / "expected.safetensors")
        oracle.write_json(folder / "expected.json", {
            "input_ids": IDS, "labels": [labels_of(ids, i) for i, ids in enumerate(IDS)], "loss": loss64, "num_labels": count,
            "float32": {"loss": loss, "max_logit_difference": worst_logit, "max_relative_gradient_difference": worst}})
        (folder / "generation_config.json").unlink(missing_ok=True)
    oracle.write_versions(HERE)


main()
