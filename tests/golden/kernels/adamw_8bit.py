#!/usr/bin/env python3
"""Steps of bitsandbytes' AdamW8bit (bitsandbytes 0.50.2, torch 2.10.0) on the CPU.

Its CPU library looks codes up in a table that is off by one or two now and then (0 becomes 131 in the signed map); the search here is
the exhaustive one of bitsandbytes' generic backend, which its CUDA kernels agree with.
"""

from pathlib import Path

import bitsandbytes.backends.cpu.ops as cpu
import bitsandbytes.optim
import torch
from safetensors.torch import save_file


def quantise(values, code, absmax_out, codes_out, blocksize):
    for block, start in enumerate(range(0, values.numel(), blocksize)):
        part = values.flatten()[start:start + blocksize]
        absmax_out[block] = part.abs().max()
        distance = (part[:, None] / absmax_out[block] - code[None]).abs()
        codes_out.view(-1)[start:start + blocksize] = distance.argmin(-1).to(torch.uint8)


cpu._quant_blockwise_fp32_direct = quantise
torch.set_num_threads(1)
torch.manual_seed(11)
out = {}
for name, weight_decay in (("plain", 0.0), ("decay", 0.1)):
    weight = torch.nn.Parameter(torch.randn(24, 25))
    optimizer = bitsandbytes.optim.AdamW8bit([weight], lr=1e-2, weight_decay=weight_decay, min_8bit_size=1)
    out[f"{name}.weight.0"] = weight.detach().clone()
    for step in range(1, 5):
        weight.grad = torch.randn_like(weight) * 10.0 ** (step - 3)
        optimizer.step()
        state = optimizer.state[weight]
        out |= {f"{name}.grad.{step}": weight.grad.clone(), f"{name}.weight.{step}": weight.detach().clone()}
        out |= {f"{name}.{ours}.{step}": state[theirs].clone() for ours, theirs in
                (("m", "state1"), ("v", "state2"), ("m_absmax", "absmax1"), ("v_absmax", "absmax2"))}
save_file(out, Path(__file__).resolve().parent / "adamw_8bit.safetensors")
