#!/usr/bin/env python3
"""make_quantized.py: values of all sizes, and what the gguf package, which rounds as ggml's reference does, makes of them."""
import pathlib

import gguf
import numpy as np
from gguf.quants import quantize
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).parent


def values():
    rng = np.random.default_rng(11)
    rows = rng.standard_normal((24, 64)).astype(np.float32)
    rows[1] *= 1e-6
    rows[2] *= 1e4
    rows[3] = 0
    rows[4, :32] = 0
    rows[5] = np.abs(rows[5])
    rows[6] = -np.abs(rows[6])
    rows[7] = np.round(rows[7] * 4) / 4  # ties
    rows[8] = 0.75
    rows[9] = np.where(np.arange(64) % 2, 3, -3)  # two of the largest magnitude
    rows[10] *= 1e-8
    return rows


if __name__ == "__main__":
    x = values()
    tensors = {"values": x}
    for name in "F16", "BF16", "Q8_0", "Q4_0", "Q4_1":
        tensors[name] = np.ascontiguousarray(quantize(x, gguf.GGMLQuantizationType[name]).view(np.uint8)).reshape(-1)
    save_file(tensors, HERE / "quantized.safetensors")
