#!/usr/bin/env python3
"""The peer of `lathe-train dpo`: TRL's DPOTrainer with a PEFT adapter, on rows of preferences in their order.

    trl_dpo.py MODEL ROWS.jsonl [--dtype f32|bf16] [--batch 8] [--threads 2] [--steps 8] [--gradient_checkpointing]

MODEL is a Hugging Face directory with a tokenizer. Frozen base weights in the chosen dtype, LoRA weights in float32 (bf16: autocast), the reference is the
model with the adapter off, as the trainer has it by default; no gradient checkpointing unless asked for, which is faster than the trainer's default. Prints
one JSON line a step, then a summary: tokens/s counts real tokens of both sequences (no padding), the first --warmup steps are left out.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time

os.environ["CUDA_VISIBLE_DEVICES"] = ""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="bf16")
    for name, value in (("batch", 8), ("threads", 2), ("steps", 8), ("warmup", 2), ("lora_r", 16), ("lora_alpha", 32)):
        parser.add_argument("--" + name, type=int, default=value)
    parser.add_argument("--gradient_checkpointing", action="store_true")
    return parser.parse_args()


def main():
    options = arguments()
    import datasets
    import torch
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import DPOConfig, DPOTrainer

    torch.set_num_threads(options.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=dtype, attn_implementation="sdpa")
    rows = datasets.Dataset.from_list([json.loads(line) for line in open(options.rows)])
    steps = []

    class InOrder(DPOTrainer):
        def _get_train_sampler(self, *unused):
            return torch.utils.data.SequentialSampler(self.train_dataset)

        def training_step(self, model, inputs, *rest):
            steps[-1]["tokens"] += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest)

    class Clock(TrainerCallback):
        def on_step_begin(self, *unused, **also_unused):
            steps.append({"tokens": 0, "start": time.perf_counter()})

        def on_step_end(self, *unused, **also_unused):
            steps[-1]["seconds"] = time.perf_counter() - steps[-1].pop("start")
            print(json.dumps(steps[-1]), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        config = DPOConfig(output_dir=folder, use_cpu=True, bf16=options.dtype == "bf16", gradient_checkpointing=options.gradient_checkpointing, max_steps=options.steps,
                           per_device_train_batch_size=options.batch, learning_rate=5e-5, report_to=[], save_strategy="no", logging_steps=1, disable_tqdm=True)
        lora = LoraConfig(r=options.lora_r, lora_alpha=options.lora_alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")
        InOrder(model=model, args=config, train_dataset=rows, processing_class=AutoTokenizer.from_pretrained(options.model), peft_config=lora,
                callbacks=[Clock()]).train()
    measured = steps[options.warmup:]
    print(json.dumps({"peer": "trl", "tokens_per_second": sum(s["tokens"] for s in measured) / sum(s["seconds"] for s in measured),
                      "median_step_seconds": statistics.median(s["seconds"] for s in measured)}))


if __name__ == "__main__":
    sys.exit(main())
