#!/usr/bin/env python3
"""make.py: what transformers makes of a text and of multiple-choice rows with tiny_llama/untied and tokenizer/byte_level.

The tokenizer has more tokens than the model: texts are drawn from characters whose tokens the model has.
"""
import json
import pathlib
import random

import tokenizers
import torch
import transformers
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
GOLDEN = HERE.parent
tokenizer = tokenizers.Tokenizer.from_file(str(GOLDEN / "tokenizer/byte_level/tokenizer.json"))
model = AutoModelForCausalLM.from_pretrained(GOLDEN / "tiny_llama/untied", dtype=torch.float64).eval()


def encode(text):
    ids = tokenizer.encode(text, add_special_tokens=True).ids
    assert max(ids) < model.config.vocab_size, text
    return ids


def words(rng, count):
    """Words of letters that merge into tokens of the model."""
    text = []
    while len(text) < count:
        word = "".join(rng.choice("ABCDEFGHJKLMQRTUVWXYZ0123456789") for _ in range(rng.randint(1, 6)))
        if max(tokenizer.encode(" " + word).ids + tokenizer.encode(word).ids) < model.config.vocab_size:
            text.append(word)
    return " ".join(text)


def strided(ids, max_length, stride):
    """Hugging Face's "Perplexity of fixed-length models"."""
    total, count, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + max_length, len(ids))
        target_length = end - previous
        labels = torch.tensor([ids[begin:end]])
        labels[:, :-target_length] = -100
        with torch.no_grad():
            loss = model(input_ids=torch.tensor([ids[begin:end]]), labels=labels).loss.item()
        scored = (labels[:, 1:] != -100).sum().item()
        total, count, previous = total + loss * scored, count + scored, end
        if end == len(ids):
            break
    return {"max_length": max_length, "stride": stride, "tokens": count, "loss": total / count}


def loglikelihood(question, choice):
    asked, whole = encode(question), encode(question + " " + choice)
    with torch.no_grad():
        logprobs = model(input_ids=torch.tensor([whole])).logits[0].log_softmax(-1)
    return sum(logprobs[i - 1, whole[i]].item() for i in range(len(asked), len(whole)))


if __name__ == "__main__":
    rng = random.Random(3)
    text = words(rng, 160)
    (HERE / "text.txt").write_text(text)
    ids = encode(text)
    windows = [strided(ids, 64, 32), strided(ids, 64, 10), strided(ids, 128, 127)]
    rows, scores = [], []
    for _ in range(24):
        question, choices = words(rng, 6), [words(rng, rng.randint(1, 4)) for _ in range(4)]
        scores.append([loglikelihood(question, choice) for choice in choices])
        rows.append({"question": question, "choices": choices, "answer": rng.randrange(4)})
    (HERE / "choices.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    best = lambda values: max(range(len(values)), key=values.__getitem__)
    norm = [[s / len(c) for s, c in zip(score, row["choices"])] for score, row in zip(scores, rows)]
    (HERE / "expected.json").write_text(json.dumps({
        "windows": windows, "logprobs": scores,
        "accuracy": sum(best(s) == r["answer"] for s, r in zip(scores, rows)) / len(rows),
        "accuracy_norm": sum(best(s) == r["answer"] for s, r in zip(norm, rows)) / len(rows)}, indent=1) + "\n")
    (HERE / "versions.txt").write_text(f"transformers {transformers.__version__}\ntorch {torch.__version__}\ntokenizers {tokenizers.__version__}\n")
