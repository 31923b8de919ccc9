#!/usr/bin/env python3
"""LoRA SFT, lathe-train against PyTorch + PEFT: the same model, rows, batch, dtype and threads, run in turn so that both see the machine's moods.

    train_vs_peft.py --lathe build/bin/lathe-train --model MODEL [--peer_model HF_DIR] [--rows ROWS.jsonl] [--device cpu|cuda|simt] [--dtype bf16|f32]
                     [--batch 8] [--row_tokens 512] [--steps 8] [--pairs 3] [--out bench/results/FILE.json]

MODEL is a GGUF file, a Hugging Face directory, or `tiny` or `1b`: Llamas of random weights that are made here. HF_DIR is the same model where MODEL is a
GGUF file: dequantised (PyTorch's peak would count the dequantising otherwise). ROWS.jsonl holds {"input_ids", "labels"}; without it, rows are --row_tokens
random ids each, the second half trained. On a card memory is what each allocator held there at most, elsewhere the process's peak. --device simt has Lathe on
the emulated device and PyTorch on the CPU: it shows that this command works. Run it with the Python of a virtual environment that has torch, transformers
and peft. A pair is one run of each; the ratio is taken pair by pair.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


# 1b: the shape of Llama 3.2 1B.
SHAPES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2048},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
}
LEAST_VOCABULARY = 300  # of any model, the tokenizer of the made ones too


def make_model(shape, dtype, folder):
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    torch.manual_seed(0)
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=8192, rope_theta=500000.0, tie_word_embeddings=True)
    LlamaForCausalLM(config).to({"bf16": torch.bfloat16, "f32": torch.float32}[dtype]).save_pretrained(folder)
    # lathe-train wants a tokenizer, although rows of ids need none.
    shutil.copy(Path(__file__).parents[2] / "tests/golden/tokenizer/byte_level/tokenizer.json", folder)


def make_rows(options, path):
    generator = random.Random(0)
    with path.open("w") as file:
        for _ in range(4 * options.batch):
            ids = [generator.randrange(LEAST_VOCABULARY) for _ in range(options.row_tokens)]
            half = options.row_tokens // 2
            file.write(json.dumps({"input_ids": ids, "labels": [-100] * half + ids[half:]}) + "\n")


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
                               "--device", options.device,
                               "--dtype", {"bf16": "bf16", "f32": "float32"}[options.dtype], "--per_device_train_batch_size", options.batch,
                               "--max_steps", options.steps, "--logging_steps", 1, "--save_steps", 0, "--shuffle", "false", "--lora_r", 16,
                               "--lora_alpha", 32, "--lora_dropout", 0, "--threads", options.threads, "--learning_rate", 1e-3,
                               "--load_in_4bit", str(options.load_in_4bit).lower(), "--gradient_checkpointing", "false"])
        lines = [json.loads(line) for line in (Path(folder) / "run/timings.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "tokens_per_second" in line][options.warmup:]
    seconds = sum(line["seconds"] for line in steps)
    if options.device == "cuda":
        peak = max(line["peak_memory_bytes"] for line in steps)
    return sum(line["tokens_per_second"] * line["seconds"] for line in steps) / seconds, peak


def peer(options):
    script = Path(__file__).with_name("peft_lora.py")
    peak, output = peak_rss_of([sys.executable, script, options.peer_model, options.rows, "--device",
                                 "cuda" if options.device == "cuda" else "cpu", "--dtype", options.dtype, "--batch", options.batch, "--threads",
                                options.threads, "--steps", options.steps, "--warmup", options.warmup, "--layout", options.layout,
                                *(["--load_in_4bit"] if options.load_in_4bit else [])])
    summary = json.loads([line for line in output.splitlines() if '"peer"' in line][-1])
    return summary["tokens_per_second"], summary["peak_device_bytes"] if options.device == "cuda" else peak


def measure(options):
    pairs = []
    for _ in range(options.pairs):
        ours, ours_peak = lathe(options)
        theirs, theirs_peak = peer(options)
        pairs.append({"lathe_tokens_per_second": round(ours, 1), "peer_tokens_per_second": round(theirs, 1), "speed_ratio": round(ours / theirs, 3),
                      "lathe_peak_bytes": int(ours_peak), "peer_peak_bytes": theirs_peak, "memory_ratio": round(ours_peak / theirs_peak, 3)})
        print(json.dumps(pairs[-1]), file=sys.stderr, flush=True)
    return {"command": " ".join(sys.argv), "device": options.device, "dtype": options.dtype, "load_in_4bit": options.load_in_4bit, "batch": options.batch, "threads": options.threads,
            "peer_layout": options.layout, "pairs": pairs, "median_speed_ratio": statistics.median(p["speed_ratio"] for p in pairs),
            "median_memory_ratio": statistics.median(p["memory_ratio"] for p in pairs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("lathe", "model"):
        parser.add_argument("--" + name, required=True)
    for name in ("peer_model", "rows"):
        parser.add_argument("--" + name)
    parser.add_argument("--device", choices=("cpu", "cuda", "simt"), default="cpu")
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--layout", choices=("padded", "packed"), default="padded")
    parser.add_argument("--load_in_4bit", action="store_true", help="QLoRA: nf4 on both sides, bitsandbytes' in the peer")
    parser.add_argument("--out")
    for name, value in (("batch", 8), ("row_tokens", 512), ("threads", 2), ("steps", 8), ("warmup", 2), ("pairs", 3)):
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.model in SHAPES:
            made = Path(folder) / options.model
            make_model(options.model, options.dtype, made)
            options.model = made
        options.peer_model = options.peer_model or options.model
        if not options.rows:
            options.rows = Path(folder) / "rows.jsonl"
            make_rows(options, options.rows)
        result = measure(options)
    print(json.dumps(result))
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
