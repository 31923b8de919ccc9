#!/usr/bin/env python3
"""Five steps of torch.optim.SGD (float64) and of bitsandbytes' Lion with 32-bit state (float32), both with weight decay."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bitsandbytes  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

HERE = Path(__file__).resolve().parent


def steps(seed, dtype, make, state_name=None):
    torch.manual_seed(seed)
    p = torch.nn.Parameter(torch.randn(7, 3, dtype=dtype))
    optimizer = make([p])
    out = {"param.0": p.detach().clone()}
    for step in range(1, 6):
        p.grad = torch.randn_like(p) * 10.0 ** (step - 3)
        out[f"grad.{step}"] = p.grad.clone()
        optimizer.step()
        out[f"param.{step}"] = p.detach().clone()
        if state_name:
            out[f"state.{step}"] = optimizer.state[p][state_name].clone()
    return out


def main():
    torch.set_num_threads(1)
    save_file(steps(11, torch.float64, lambda p: torch.optim.SGD(p, lr=1e-2, weight_decay=0.1)), HERE / "sgd.safetensors")
    save_file(steps(12, torch.float32, lambda p: bitsandbytes.optim.Lion32bit(p, lr=1e-2, betas=(0.9, 0.99), weight_decay=0.1), "state1"), HERE / "lion.safetensors")
    print("torch", torch.__version__, "bitsandbytes", bitsandbytes.__version__)


main()
