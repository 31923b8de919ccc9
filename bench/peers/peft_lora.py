#!/usr/bin/env python3
"""The peer of `lathe-train sft`: LoRA SFT with PyTorch and PEFT, on rows that are already token ids.

    peft_lora.py MODEL ROWS.jsonl [--device cpu|cuda] [--dtype f32|bf16] [--batch 8] [--threads 2] [--steps 20] [--layout padded|packed]
                 [--full-logits] [--load_in_4bit]

MODEL is a Hugging Face directory or a .gguf file (dequantised by transformers). A row is {"input_ids": [...], "labels": [...]}, -100 = not trained.
The fastest honest way that PyTorch has: sdpa attention, frozen base weights in the chosen dtype, LoRA weights in float32 (bf16: autocast), fused AdamW,
rows sorted into the batch as they come, logits only where there is a label (--full-logits for what a plain Trainer does). `padded` pads a batch to its
longest row; `packed` puts the rows behind one another with a block-diagonal mask. Prints one JSON line a step, then a summary: tokens/s counts real
tokens (no padding), the first --warmup steps are left out; peak_rss_bytes is ru_maxrss, peak_device_bytes what PyTorch held on the card at most.
"""

import argparse
import json
import resource
import statistics
import sys
import time
from contextlib import nullcontext
from pathlib import Path


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=2, help="steps left out of the summary")
    parser.add_argument("--layout", choices=("padded", "packed"), default="padded")
    parser.add_argument("--full-logits", action="store_true")
    parser.add_argument("--gradient_checkpointing", action="store_true")
    parser.add_argument("--load_in_4bit", action="store_true")
    parser.add_argument("--lora_r", type=int, default=16)
    parser.add_argument("--lora_alpha", type=int, default=32)
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load(path, dtype, load_in_4bit=False):
    from transformers import AutoModelForCausalLM
    if load_in_4bit:
        from transformers import BitsAndBytesConfig
        quantization = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa", quantization_config=quantization, device_map="cpu")
    if path.suffix != ".gguf":
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=dtype, attn_implementation="sdpa")
    if hasattr(model.config, "quantization_config"):  # it is dequantised: PEFT shall wrap plain linears
        del model.config.quantization_config
    model.is_quantized = False
    return model


def padded(rows, torch):
    length = max(len(r["input_ids"]) for r in rows)
    fill = lambda key, value: torch.tensor([r[key] + [value] * (length - len(r[key])) for r in rows])  # noqa: E731
    mask = torch.tensor([[1] * len(r["input_ids"]) + [0] * (length - len(r["input_ids"])) for r in rows])
    return {"input_ids": fill("input_ids", 0), "attention_mask": mask}, fill("labels", -100)


def packed(rows, torch, dtype):
    lengths = [len(r["input_ids"]) for r in rows]
    sample = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths))
    positions = torch.cat([torch.arange(n) for n in lengths])
    same = (sample[:, None] == sample[None, :]) & (positions[:, None] >= positions[None, :])
    mask = torch.zeros(same.shape, dtype=dtype).masked_fill(~same, torch.finfo(dtype).min)[None, None]
    labels = torch.tensor([x for r in rows for x in [-100, *r["labels"][1:]]])[None]
    return {"input_ids": torch.tensor([t for r in rows for t in r["input_ids"]])[None], "position_ids": positions[None], "attention_mask": mask}, labels


def main():
    options = arguments()
    import torch
    from peft import LoraConfig, get_peft_model
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]
    rows = [json.loads(line) for line in options.rows.read_text(encoding="utf-8").splitlines() if line.strip()]

    model = get_peft_model(load(options.model, dtype, options.load_in_4bit), LoraConfig(
        r=options.lora_r, lora_alpha=options.lora_alpha, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM")).to(options.device)
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    parameters = [p for p in model.parameters() if p.requires_grad]
    for p in parameters:
        p.data = p.data.float()
    optimizer = torch.optim.AdamW(parameters, lr=options.learning_rate, weight_decay=0.0, fused=True)
    precision = (lambda: torch.autocast(options.device, torch.bfloat16)) if options.dtype == "bf16" else nullcontext
    causal_lm = model.get_base_model()
    model.train()
    synchronize = torch.cuda.synchronize if options.device == "cuda" else lambda: None

    seconds, tokens = [], []
    for step in range(options.steps):
        batch = [rows[(step * options.batch + i) % len(rows)] for i in range(options.batch)]
        begin = time.perf_counter()
        inputs, labels = padded(batch, torch) if options.layout == "padded" else packed(batch, torch, dtype)
        inputs, labels = {name: value.to(options.device) for name, value in inputs.items()}, labels.to(options.device)
        with precision():
            hidden = causal_lm.model(**inputs, use_cache=False).last_hidden_state[:, :-1]
            targets = labels[:, 1:]
            if not options.full_logits:
                hidden, targets = hidden[targets != -100], targets[targets != -100]
            logits = causal_lm.lm_head(hidden).float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets.flatten(), ignore_index=-100)
        loss.backward()
        grad_norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        synchronize()
        seconds.append(time.perf_counter() - begin)
        tokens.append(sum(len(r["input_ids"]) for r in batch))
        print(json.dumps({"step": step + 1, "loss": round(loss.item(), 6), "grad_norm": round(grad_norm.item(), 6), "seconds": round(seconds[-1], 4),
                          "tokens_per_second": round(tokens[-1] / seconds[-1], 1)}), flush=True)

    skip = min(options.warmup, options.steps - 1)
    print(json.dumps({
        "peer": "torch+peft", "torch": torch.__version__, "device": options.device, "dtype": options.dtype, "batch": options.batch, "threads": options.threads, "layout": options.layout,
        "full_logits": options.full_logits, "steps": options.steps - skip, "tokens_per_second": round(sum(tokens[skip:]) / sum(seconds[skip:]), 1),
        "median_step_seconds": round(statistics.median(seconds[skip:]), 4), "trainable_parameters": sum(p.numel() for p in parameters),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024),
        "peak_device_bytes": torch.cuda.max_memory_allocated() if options.device == "cuda" else 0}))


if __name__ == "__main__":
    main()
