#!/usr/bin/env python3
"""The recurrence of transformers' Granite hybrids (mamba2_chunk_scan, which its Mamba-2 calls as well), and torch's gradients through it."""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.models.granitemoehybrid.modeling_granitemoehybrid import mamba2_chunk_scan

# name: tokens, heads, groups, head dimension, state size, limits of the step
CASES = {"one": (7, 1, 1, 16, 8, (0.0, math.inf)), "grouped": (70, 4, 2, 8, 16, (0.25, 1.5))}
scan = getattr(mamba2_chunk_scan, "__wrapped__", mamba2_chunk_scan)


def main():
    torch.set_num_threads(1)
    torch.manual_seed(40)
    out = {}
    for name, (tokens, heads, groups, head_dim, state_size, limits) in CASES.items():
        leaves = {"xbc": torch.randn(tokens, heads * head_dim + 2 * groups * state_size), "dt": torch.randn(tokens, heads),
                  "A_log": torch.empty(heads).uniform_(0.05, 8).log(), "D": torch.randn(heads), "dt_bias": torch.randn(heads)}
        for leaf in leaves.values():
            leaf.requires_grad_()
        x, b, c = (part.view(1, tokens, -1, dim) for part, dim in
                   zip(leaves["xbc"].split([heads * head_dim, groups * state_size, groups * state_size], dim=-1), (head_dim, state_size, state_size)))
        result, state = scan(x, leaves["dt"][None], -leaves["A_log"].exp(), b, c, chunk_size=16, D=leaves["D"], dt_bias=leaves["dt_bias"],
                             dt_softplus=True, dt_limit=limits, return_final_states=True)
        grad_out = torch.randn(tokens, heads * head_dim)
        result.reshape(tokens, -1).backward(grad_out)
        tensors = leaves | {"out": result.reshape(tokens, -1), "state": state[0].transpose(1, 2)[None], "grad_out": grad_out}
        tensors |= {f"grad_{leaf}": tensor.grad for leaf, tensor in leaves.items()}
        out |= {f"{name}.{key}": tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    save_file(out, Path(__file__).resolve().with_suffix(".safetensors"))


main()
