#!/usr/bin/env python3
"""LoRA SFT, lathe-train against PyTorch + PEFT: the same model, rows, batch, dtype and threads, run in turn so that both see the machine's moods.

    train_vs_peft.py --lathe build/bin/lathe-train --model MODEL.gguf --peer_model HF_DIR --rows ROWS.jsonl [--dtype bf16|f32] [--batch 8]
                     [--steps 8] [--pairs 3] [--out bench/results/FILE.json]

ROWS.jsonl holds {"input_ids", "labels"}. HF_DIR is the same model dequantised (PyTorch's peak would count the dequantising otherwise). Run it with
the Python of a virtual environment that has torch, transformers and peft. A pair is one run of each; the ratio is taken pair by pair.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def peak_rss_of(command):
    """Runs the command; its output and its own peak memory (the largest child so far, so the caller keeps the order in mind)."""
    script = ("import resource, subprocess, sys; code = subprocess.run(sys.argv[1:], stdout=sys.stderr).returncode; "
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024); sys.exit(code)")
    done = subprocess.run([sys.executable, "-c", script, *map(str, command)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{done.stderr}")
    return int(done.stdout.split()[-1]), done.stderr


def lathe(options):
    with tempfile.TemporaryDirectory() as folder:
        peak, _ = peak_rss_of([options.lathe, "sft", "--model", options.model, "--dataset", options.rows, "--output_dir", Path(folder) / "run",
                               "--dtype", {"bf16": "bf16", "f32": "float32"}[options.dtype], "--per_device_train_batch_size", options.batch,
                               "--max_steps", options.steps, "--logging_steps", 1, "--save_steps", 0, "--shuffle", "false", "--lora_r", 16,
                               "--lora_alpha", 32, "--lora_dropout", 0, "--threads", options.threads, "--learning_rate", 1e-3])
        lines = [json.loads(line) for line in (Path(folder) / "run/timings.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "tokens_per_second" in line][options.warmup:]
    seconds = sum(line["seconds"] for line in steps)
    return sum(line["tokens_per_second"] * line["seconds"] for line in steps) / seconds, peak


def peer(options):
    script = Path(__file__).with_name("peft_lora.py")
    peak, output = peak_rss_of([sys.executable, script, options.peer_model, options.rows, "--dtype", options.dtype, "--batch", options.batch, "--threads",
                                options.threads, "--steps", options.steps, "--warmup", options.warmup, "--layout", options.layout])
    summary = json.loads([line for line in output.splitlines() if '"peer"' in line][-1])
    return summary["tokens_per_second"], peak


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("lathe", "model", "peer_model", "rows"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--layout", choices=("padded", "packed"), default="padded")
    parser.add_argument("--out")
    for name, value in (("batch", 8), ("threads", 2), ("steps", 8), ("warmup", 2), ("pairs", 3)):
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    pairs = []
    for _ in range(options.pairs):
        ours, ours_peak = lathe(options)
        theirs, theirs_peak = peer(options)
        pairs.append({"lathe_tokens_per_second": round(ours, 1), "peer_tokens_per_second": round(theirs, 1), "speed_ratio": round(ours / theirs, 3),
                      "lathe_peak_bytes": ours_peak, "peer_peak_bytes": theirs_peak, "memory_ratio": round(ours_peak / theirs_peak, 3)})
        print(json.dumps(pairs[-1]), flush=True)
    result = {"command": " ".join(sys.argv), "dtype": options.dtype, "batch": options.batch, "threads": options.threads, "peer_layout": options.layout, "pairs": pairs,
              "median_speed_ratio": statistics.median(p["speed_ratio"] for p in pairs),
              "median_memory_ratio": statistics.median(p["memory_ratio"] for p in pairs)}
    print(json.dumps(result))
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
