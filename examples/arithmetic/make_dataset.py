#!/usr/bin/env python3
"""make_dataset.py [FOLDER]: prompts of sums of two numbers from 1 to 12, each pair once: train.jsonl and, of pairs that are not in it, heldout.jsonl.

The same seed gives the same bytes.
"""

import json
import random
import sys
from pathlib import Path

SEED = 7
HELD_OUT = 44


def row(a, b):
    return {"prompt": [{"role": "user", "content": f"What is {a} + {b}? Answer with the number alone."}], "answer": a + b}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent
    pairs = [(a, b) for a in range(1, 13) for b in range(1, 13)]
    random.Random(SEED).shuffle(pairs)
    for name, part in (("heldout", pairs[:HELD_OUT]), ("train", pairs[HELD_OUT:])):
        lines = [json.dumps(row(a, b), separators=(",", ":")) + "\n" for a, b in part]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


main()
