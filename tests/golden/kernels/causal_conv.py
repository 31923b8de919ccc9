#!/usr/bin/env python3
"""transformers' causal convolution of Qwen3.5 and its steps, and a product gated by the logistic function, in float64 (transformers 5.24.0, torch 2.15.0)."""

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers.models.qwen3_5 import modeling_qwen3_5

HERE = Path(__file__).resolve().parent
whole = getattr(modeling_qwen3_5.causal_conv1d_fn, "__wrapped__", modeling_qwen3_5.causal_conv1d_fn)
step = getattr(modeling_qwen3_5.causal_conv1d_update, "__wrapped__", modeling_qwen3_5.causal_conv1d_update)


def leaf(*shape):
    return torch.randn(*shape, dtype=torch.float64).requires_grad_()


def causal_conv():
    out = {"cu_seqlens": torch.tensor([0, 1, 3, 12], dtype=torch.int32)}
    for name, taps, biased in (("plain4", 4, False), ("biased3", 3, True)):
        x, weight, bias = leaf(12, 10), leaf(10, taps), leaf(10) if biased else None
        rows = [x[begin:end].T[None] for begin, end in zip(out["cu_seqlens"].tolist(), out["cu_seqlens"].tolist()[1:])]
        y = torch.cat([whole(r, weight, bias, activation="silu")[0].T for r in rows])
        dy = torch.randn_like(y)
        y.backward(dy)
        out |= {f"{name}.x": x, f"{name}.weight": weight, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dx": x.grad, f"{name}.dweight": weight.grad}
        if biased:
            out |= {f"{name}.bias": bias, f"{name}.dbias": bias.grad}
        with torch.no_grad():  # the last sequence in steps of 2, 1 and 6
            state = torch.zeros(1, 10, taps - 1, dtype=torch.float64)
            steps = [step(part, state, weight, bias, "silu")[0].T for part in rows[-1].split([2, 1, 6], dim=-1)]
        out |= {f"{name}.steps": torch.cat(steps), f"{name}.state": state[0].T}
    return out


def glu():
    gate, up = leaf(6, 9), leaf(6, 9)
    y = up * torch.sigmoid(3 * gate)
    dy = torch.randn_like(y)
    y.backward(dy)
    return {"glu.gate": 3 * gate, "glu.up": up, "glu.y": y, "glu.dy": dy, "glu.dgate": gate.grad / 3, "glu.dup": up.grad}


for make in (causal_conv, glu):
    torch.manual_seed(1)
    save_file({k: v.detach().contiguous() for k, v in make().items()}, HERE / f"{make.__name__}.safetensors")
