#!/usr/bin/env python3
"""LoRA DPO, lathe-train against TRL: the same model, rows, batch, dtype and threads, run in turn so that both see the machine's moods.

    dpo_vs_trl.py --lathe build/bin/lathe-train --model MODEL --peer_model HF_DIR [--rows ROWS.jsonl] [--dtype bf16|f32] [--batch 8] [--steps 8] [--pairs 3]
                  [--out bench/results/FILE.json]

HF_DIR is the same model as MODEL, dequantised where that is a GGUF file, with its tokenizer. Memory is the process's peak. Every row comes once, so that
Lathe, which computes a row's reference once, computes it in every step as TRL does. Run it with the Python of a virtual environment that has torch,
transformers, peft and trl. A pair is one run of each; the ratio is taken pair by pair.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from train_vs_peft import peak_rss_of


def lathe(options):
    with tempfile.TemporaryDirectory() as folder:
        peak, _ = peak_rss_of([options.lathe, "dpo", "--model", options.model, "--dataset", options.rows, "--output_dir", Path(folder) / "run",
                               "--dtype", {"bf16": "bf16", "f32": "float32"}[options.dtype], "--per_device_train_batch_size", options.batch,
                               "--max_steps", options.steps, "--logging_steps", 1, "--save_steps", 0, "--shuffle", "false", "--lora_r", 16,
                               "--lora_alpha", 32, "--threads", options.threads, "--learning_rate", 5e-5])
        lines = [json.loads(line) for line in (Path(folder) / "run/timings.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "tokens_per_second" in line][options.warmup:]
    return sum(line["tokens_per_second"] * line["seconds"] for line in steps) / sum(line["seconds"] for line in steps), peak


def peer(options):
    peak, output = peak_rss_of([sys.executable, Path(__file__).with_name("trl_dpo.py"), options.peer_model, options.rows, "--dtype", options.dtype, "--batch",
                                options.batch, "--threads", options.threads, "--steps", options.steps, "--warmup", options.warmup])
    return json.loads([line for line in output.splitlines() if '"peer"' in line][-1])["tokens_per_second"], peak


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("lathe", "model", "peer_model"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--rows", default=str(Path(__file__).parents[2] / "examples/preferences/train.jsonl"))
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--out")
    for name, value in (("batch", 8), ("threads", 2), ("steps", 8), ("warmup", 2), ("pairs", 3)):
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    if options.batch * options.steps > len(Path(options.rows).read_text().splitlines()):
        sys.exit("every row must come at most once: fewer --steps or more rows")
    pairs = []
    for _ in range(options.pairs):
        (ours, ours_peak), (theirs, theirs_peak) = lathe(options), peer(options)
        pairs.append({"lathe_tokens_per_second": round(ours, 1), "peer_tokens_per_second": round(theirs, 1), "speed_ratio": round(ours / theirs, 3),
                      "lathe_peak_bytes": int(ours_peak), "peer_peak_bytes": theirs_peak, "memory_ratio": round(ours_peak / theirs_peak, 3)})
        print(json.dumps(pairs[-1]), file=sys.stderr, flush=True)
    result = {"command": " ".join(sys.argv), "dtype": options.dtype, "batch": options.batch, "threads": options.threads, "pairs": pairs,
              "median_speed_ratio": statistics.median(p["speed_ratio"] for p in pairs),
              "median_memory_ratio": statistics.median(p["memory_ratio"] for p in pairs)}
    print(json.dumps(result, indent=1))
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
