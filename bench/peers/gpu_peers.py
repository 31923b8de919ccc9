#!/usr/bin/env python3
"""PyTorch on the same card, for scripts/gpu-check: scaled-dot-product attention by backend, matrix products, a copy.

Prints a line of JSON for each result as soon as it is there, {"name", "seconds", "tflops" or "gbytes_per_second"}, after one for the
versions. Random data, buffers in turn that together exceed the last cache three times, CUDA events, the median of several repetitions.
A backend that refuses a shape is left out with its reason.
"""
import json
import statistics
import sys

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

DEVICE = "cuda"
REPETITIONS = 7


def rotations(nbytes):
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(2, min(64, 3 * cache // nbytes + 1))


def seconds_of(calls):
    for call in calls[:3] * 2:
        call()
    torch.cuda.synchronize()
    times = []
    rounds = 1
    for _ in range(REPETITIONS + 1):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(rounds):
            for call in calls:
                call()
        end.record()
        end.synchronize()
        seconds = start.elapsed_time(end) / 1e3
        times.append(seconds / rounds / len(calls))
        if len(times) == 1:
            rounds = max(1, min(1000, int(0.05 / seconds)))  # a repetition is about 50 ms
    return statistics.median(times[1:])


def say(result):
    print(json.dumps(result), flush=True)  # what is killed later has said this


def attention(backend, length, head_dim, backward):
    # 16k tokens in all, 2048 / head_dim heads: FlashAttention's own shapes.
    batch, heads = 16384 // length, 2048 // head_dim
    shape = (batch, heads, length, head_dim)
    flops = 4 * length * length * head_dim * heads * batch / 2 * (2.5 if backward else 1)
    name = f"sdpa_{backend.name.lower()}_{'backward' if backward else 'forward'}/s{length}_d{head_dim}_causal_bf16"
    sets = [[torch.randn(shape, device=DEVICE, dtype=torch.bfloat16, requires_grad=backward) for _ in range(3)]
            for _ in range(rotations(4 * 2 * batch * heads * length * head_dim))]
    try:
        with sdpa_kernel(backend):
            def forward(qkv):
                return torch.nn.functional.scaled_dot_product_attention(*qkv, is_causal=True)
            if backward:
                outs = [forward(qkv) for qkv in sets]
                grads = [torch.randn_like(out) for out in outs]
                calls = [lambda qkv=qkv, out=out, grad=grad: torch.autograd.grad(out, qkv, grad, retain_graph=True)
                         for qkv, out, grad in zip(sets, outs, grads)]
            else:
                calls = [lambda qkv=qkv: forward(qkv) for qkv in sets]
            seconds = seconds_of(calls)
    except RuntimeError as error:
        say({"name": name, "left_out": str(error).splitlines()[0]})
        return
    say({"name": name, "seconds": seconds, "tflops": flops / seconds / 1e12})


def product(size):
    pairs = [[torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)] for _ in range(rotations(6 * size * size))]
    seconds = seconds_of([lambda a=a, b=b: a @ b.T for a, b in pairs])
    say({"name": f"matmul/{size}_bf16", "seconds": seconds, "tflops": 2 * size**3 / seconds / 1e12})


def main():
    if not torch.cuda.is_available():
        sys.exit("gpu_peers.py: PyTorch sees no card")
    torch.manual_seed(1)
    say({"torch": torch.__version__, "card": torch.cuda.get_device_name(0)})
    with torch.no_grad():
        source = torch.randn(1 << 28, device=DEVICE)
        target = torch.empty_like(source)
        seconds = seconds_of([lambda: target.copy_(source)])
        say({"name": "copy/1GiB", "seconds": seconds, "gbytes_per_second": 2 * source.nbytes / seconds / 1e9})
        del source, target
        for size in (4096, 8192):
            product(size)
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION):
        for head_dim in (64, 128):
            for length in (4096, 16384):
                for backward in (False, True):
                    attention(backend, length, head_dim, backward)


if __name__ == "__main__":
    main()
