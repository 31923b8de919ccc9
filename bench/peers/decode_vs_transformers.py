#!/usr/bin/env python3
"""Tokens a second of one sequence's answer: lathe-bench beside transformers' generate, in turn.

    decode_vs_transformers.py --lathe build/bin/lathe-bench --model MODEL [--device cpu|cuda|simt] [--dtype bf16|f32] [--new_tokens 128] [--rounds 3]
                              [--threads 2]

MODEL is a Hugging Face directory, or `tiny` or `1b` (train_vs_peft.py): Llamas of random weights that are made here. transformers decodes greedily after one
token of prompt, as lathe-bench does: eager, with a cache that grows; and compiled, with a static cache, where it compiles the step (on a card). Its first
answer warms up and compiles. Prints a line of JSON for each figure as soon as it is there. --device simt has Lathe on the emulated device and
transformers on the CPU: it shows that this command works.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from train_vs_peft import SHAPES, make_model


def say(result):
    print(json.dumps(result), flush=True)


def lathe(options):
    command = [options.lathe, "model", options.model, "--device", options.device, "--dtype", options.dtype, "--prompt_tokens", 0, "--new_tokens",
               options.new_tokens, "--repetitions", 3 if options.device == "cuda" else 1, "--threads", options.threads, "--json"]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return json.loads(done.stdout)[f"tg{options.new_tokens}"]


class Transformers:
    def __init__(self, options):
        import torch
        from transformers import AutoModelForCausalLM
        torch.set_num_threads(options.threads)
        self.torch, self.new_tokens, self.device = torch, options.new_tokens, "cuda" if options.device == "cuda" else "cpu"
        dtype = {"bf16": torch.bfloat16, "f32": torch.float32}[options.dtype]
        self.model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, attn_implementation="sdpa").to(self.device).eval()

    def tokens_per_second(self, cache):
        prompt = self.torch.ones((1, 1), dtype=self.torch.long, device=self.device)
        for last in (False, True):
            start = time.perf_counter()
            with self.torch.inference_mode():
                made = self.model.generate(prompt, attention_mask=self.torch.ones_like(prompt), do_sample=False, min_new_tokens=self.new_tokens,
                                           max_new_tokens=self.new_tokens, cache_implementation=cache, pad_token_id=0)
            if self.device == "cuda":
                self.torch.cuda.synchronize()
            if last:
                return (made.shape[1] - 1) / (time.perf_counter() - start)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--device", choices=("cpu", "cuda", "simt"), default="cpu")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    for name, value in (("new_tokens", 128), ("rounds", 3), ("threads", 2)):
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model in SHAPES:
            made = Path(folder) / options.model
            make_model(options.model, options.dtype, made)
            options.model = made
        peer = None
        for number in range(options.rounds):
            # Lathe first: a figure is there before the peer has loaded and compiled.
            say({"name": "decode", "side": "lathe", "round": number, "tokens_per_second": lathe(options)})
            peer = peer or Transformers(options)
            for kind, cache in (("eager", None), ("static cache", "static")):
                say({"name": "decode", "side": f"transformers, {kind}", "round": number, "tokens_per_second": peer.tokens_per_second(cache)})


if __name__ == "__main__":
    main()
