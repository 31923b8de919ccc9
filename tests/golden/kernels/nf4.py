#!/usr/bin/env python3
"""bitsandbytes' nf4 on the CPU (bitsandbytes 0.50.2, torch 2.10.0, safetensors 0.8.0): codes, scales, doubly quantised scales and what they stand for."""

from pathlib import Path

import bitsandbytes.functional as bnb
import torch
from safetensors.torch import save_file

# name: shape, block size, dtype. A shape whose rows end inside a block is left to the codes: bitsandbytes' AVX-512 body dequantises it wrongly.
CASES = {
    "nested64": ((300, 64), 64, torch.bfloat16),
    "nested32": ((40, 96), 32, torch.float32),
    "nested128": ((24, 256), 128, torch.float16),
    "plain64": ((12, 128), 64, torch.float32),
    "plain4096": ((2, 4096), 4096, torch.bfloat16),
    "ragged64": ((5, 67), 64, torch.float32),
}


def main():
    torch.set_num_threads(1)
    torch.manual_seed(50)
    out = {}
    for name, (shape, block_size, dtype) in CASES.items():
        weight = (0.05 * torch.randn(shape) * torch.rand(shape[0], 1)).to(dtype)
        if name == "plain64":
            weight[3, 64:] = 0  # a block of zeros
        codes, state = bnb.quantize_4bit(weight, blocksize=block_size, quant_type="nf4")
        out |= {f"{name}.weight": weight, f"{name}.codes": codes.flatten(), f"{name}.absmax": state.absmax}
        if name.startswith("nested"):
            again, state = bnb.quantize_4bit(weight, blocksize=block_size, quant_type="nf4", compress_statistics=True)
            assert torch.equal(again, codes)
            out |= {f"{name}.absmax_codes": state.absmax, f"{name}.nested_absmax": state.state2.absmax, f"{name}.offset": state.offset.reshape(1)}
        if name != "ragged64":
            out[f"{name}.dequantized"] = bnb.dequantize_4bit(codes, state)
    save_file(out, Path(__file__).resolve().with_suffix(".safetensors"))


main()
