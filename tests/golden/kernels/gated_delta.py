#!/usr/bin/env python3
"""The gated delta rule of transformers' Qwen3.5 (torch_recurrent_gated_delta_rule with its l2norm), and torch's gradients through it."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.models.qwen3_5.modeling_qwen3_5 import torch_recurrent_gated_delta_rule

# name: tokens, key heads, value heads, key dimension, value dimension
CASES = {"one": (7, 1, 1, 8, 16), "grouped": (70, 2, 4, 16, 8)}


def main():
    torch.set_num_threads(1)
    torch.manual_seed(35)
    out = {}
    for name, (tokens, key_heads, value_heads, key_dim, value_dim) in CASES.items():
        keys = key_heads * key_dim
        leaves = {"qkv": torch.randn(tokens, 2 * keys + value_heads * value_dim), "a": torch.randn(tokens, value_heads),
                  "b": torch.randn(tokens, value_heads), "A_log": torch.empty(value_heads).uniform_(0.05, 8).log(),
                  "dt_bias": torch.randn(value_heads)}
        for leaf in leaves.values():
            leaf.requires_grad_()
        q, k, v = (part.view(1, tokens, -1, dim) for part, dim in
                   zip(leaves["qkv"].split([keys, keys, value_heads * value_dim], dim=-1), (key_dim, key_dim, value_dim)))
        g = -leaves["A_log"].float().exp() * torch.nn.functional.softplus(leaves["a"].float() + leaves["dt_bias"])
        result, state = torch_recurrent_gated_delta_rule(q, k, v, g=g[None], beta=leaves["b"].sigmoid()[None], output_final_state=True,
                                                         use_qk_l2norm_in_kernel=True)
        grad_out = torch.randn(tokens, value_heads * value_dim)
        result.reshape(tokens, -1).backward(grad_out)
        tensors = leaves | {"out": result.reshape(tokens, -1), "state": state[0], "grad_out": grad_out}
        tensors |= {f"grad_{leaf}": tensor.grad for leaf, tensor in leaves.items()}
        out |= {f"{name}.{key}": tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    save_file(out, Path(__file__).resolve().with_suffix(".safetensors"))


main()
