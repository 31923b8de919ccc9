#!/usr/bin/env python3
"""GRPO with LoRA on the CPU, lathe-train against TRL's GRPOTrainer: the same model, prompts, batch, dtype and threads, run in turn.

    grpo_vs_trl.py --lathe build/bin/lathe-train --model MODEL --dataset examples/arithmetic/train.jsonl [--dtype bf16|f32] [--batch 32]
                   [--num_generations 8] [--max_completion_length 64] [--steps 5] [--pairs 2] [--out bench/results/FILE.json]

TRL generates with transformers (its default), SDPA attention, frozen base weights in the dtype, bf16 autocast where that is bf16. Tokens are prompts and
completions without padding, as TRL counts num_tokens; the first --warmup steps are left out. Memory is each process's peak. The reward is the number of
different tokens of a completion, which costs nothing. Run it with the Python of a virtual environment that has torch, transformers, peft, trl and datasets.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peft_lora import load
from train_vs_peft import peak_rss_of


def lathe(options):
    with tempfile.TemporaryDirectory() as folder:
        peak, _ = peak_rss_of([options.lathe, "grpo", "--model", options.model, "--dataset", options.dataset, "--output_dir", Path(folder) / "run",
                               "--reward_funcs", "repetition", "--dtype", {"bf16": "bfloat16", "f32": "float32"}[options.dtype],
                               "--per_device_train_batch_size", options.batch, "--num_generations", options.num_generations,
                               "--max_completion_length", options.max_completion_length, "--max_steps", options.steps, "--logging_steps", 1,
                               "--save_steps", 0, "--lora_r", 16, "--lora_alpha", 32, "--threads", options.threads, "--learning_rate", 1e-5])
        lines = [json.loads(line) for line in (Path(folder) / "run/timings.jsonl").read_text().splitlines()]
    steps = lines[options.warmup:]
    return sum(x["tokens_per_second"] * x["seconds"] for x in steps) / sum(x["seconds"] for x in steps), peak


def peer(options):
    command = [sys.executable, Path(__file__), "--as_peer", "--model", options.model, "--dataset", options.dataset]
    for name in ("dtype", "batch", "num_generations", "max_completion_length", "steps", "warmup", "threads"):
        command += ["--" + name, getattr(options, name)]
    peak, output = peak_rss_of(command)
    return json.loads([line for line in output.splitlines() if '"peer"' in line][-1])["tokens_per_second"], peak


def run_peer(options):
    import torch
    from datasets import load_dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer
    torch.set_num_threads(options.threads)
    model = load(Path(options.model), {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype])
    path = Path(options.model)
    where = {"gguf_file": path.name} if path.suffix == ".gguf" else {}
    tokenizer = AutoTokenizer.from_pretrained(str(path.parent if where else path), **where)
    marks = []

    class Clock(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            marks.append((time.perf_counter(), state.num_input_tokens_seen))

    def repetition(completion_ids, **kwargs):
        return [len(set(ids)) / len(ids) - 1 for ids in completion_ids]

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(output_dir=folder, per_device_train_batch_size=options.batch, num_generations=options.num_generations,
                            max_completion_length=options.max_completion_length, max_steps=options.steps, learning_rate=1e-5, logging_steps=1,
                            save_strategy="no", report_to=[], use_cpu=True, bf16=options.dtype == "bf16", gradient_checkpointing=False,
                            disable_tqdm=True)
        lora = LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        GRPOTrainer(model=model, reward_funcs=repetition, args=config, processing_class=tokenizer, peft_config=lora, callbacks=[Clock()],
                    train_dataset=load_dataset("json", data_files=str(options.dataset), split="train")).train()
    (start, tokens_before), (end, tokens_after) = marks[options.warmup - 1], marks[-1]
    print(json.dumps({"peer": "trl", "tokens_per_second": (tokens_after - tokens_before) / (end - start)}), file=sys.stderr)


def measure(options):
    pairs = []
    for _ in range(options.pairs):
        ours, ours_peak = lathe(options)
        theirs, theirs_peak = peer(options)
        pairs.append({"lathe_tokens_per_second": round(ours, 1), "peer_tokens_per_second": round(theirs, 1), "speed_ratio": round(ours / theirs, 3),
                      "lathe_peak_bytes": ours_peak, "peer_peak_bytes": theirs_peak, "memory_ratio": round(ours_peak / theirs_peak, 3)})
        print(json.dumps(pairs[-1]), file=sys.stderr, flush=True)
    versions = subprocess.run([sys.executable, "-c", "import torch, trl, transformers, peft; print('torch', torch.__version__, 'trl', trl.__version__, "
                               "'transformers', transformers.__version__, 'peft', peft.__version__)"], capture_output=True, text=True).stdout.strip()
    return {"command": " ".join(sys.argv), "versions": versions, "dtype": options.dtype, "batch": options.batch,
            "num_generations": options.num_generations, "max_completion_length": options.max_completion_length, "threads": options.threads, "pairs": pairs,
            "median_speed_ratio": statistics.median(p["speed_ratio"] for p in pairs),
            "median_memory_ratio": statistics.median(p["memory_ratio"] for p in pairs)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lathe")
    for name in ("model", "dataset"):
        parser.add_argument("--" + name, required=True)
    parser.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    parser.add_argument("--out")
    parser.add_argument("--as_peer", action="store_true")
    for name, value in (("batch", 32), ("num_generations", 8), ("max_completion_length", 64), ("threads", 2), ("steps", 5), ("warmup", 2), ("pairs", 2)):
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    if options.as_peer:
        return run_peer(options)
    result = measure(options)
    print(json.dumps(result))
    if options.out:
        Path(options.out).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
