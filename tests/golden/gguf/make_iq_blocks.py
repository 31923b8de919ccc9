#!/usr/bin/env python3
"""make_iq_blocks.py: blocks of ggml's IQ1, IQ2 and IQ3 types, of random bytes, and what the gguf package makes of them.

The indices of a type's blocks together are every entry of its grid (IQ1_M has IQ1_S's). Among the scales are 0, the smallest and the largest f16, and negative ones.
"""
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
ENTRIES = {"IQ2_XXS": 256, "IQ2_XS": 512, "IQ2_S": 1024, "IQ3_XXS": 256, "IQ3_S": 512, "IQ1_S": 2048, "IQ1_M": 256}


def put_indices(name, blocks, indices):
    """indices: [blocks, 32 of 8 neighbours or 64 of 4]."""
    low, high = indices & 255, indices >> 8
    if name == "IQ2_XXS":
        blocks[:, 2:].reshape(-1, 8, 8)[:, :, :4] = low.reshape(-1, 8, 4)
    elif name == "IQ2_XS":
        pairs = blocks[:, 2:66].reshape(-1, 32, 2)
        pairs[:, :, 0], pairs[:, :, 1] = low, pairs[:, :, 1] & 254 | high
    elif name == "IQ2_S":
        blocks[:, 2:34] = low
        blocks[:, 66:74] = (high.reshape(-1, 8, 4) << np.array([0, 2, 4, 6])).sum(axis=-1)
    elif name == "IQ3_XXS":
        blocks[:, 2:66] = low
    elif name == "IQ3_S":
        blocks[:, 2:66] = low
        blocks[:, 66:74] = (high.reshape(-1, 8, 8) << np.arange(8)).sum(axis=-1)
    elif name == "IQ1_S":
        blocks[:, 2:34] = low
        words = blocks[:, 34:].copy().view(np.uint16) & 0xf000 | (high.reshape(-1, 8, 4) << np.array([0, 3, 6, 9])).sum(axis=-1)
        blocks[:, 34:] = words.astype(np.uint16).view(np.uint8)
    elif name == "IQ1_M":
        blocks[:, :32] = low


def put_scales(name, blocks, scales):
    bits = scales.astype(np.float16).view(np.uint16)
    if name == "IQ1_M":
        for i in range(4):
            blocks[:, 49 + 2 * i] = blocks[:, 49 + 2 * i] & 15 | (bits >> (4 * i) & 15) << 4
    else:
        blocks[:, :2] = bits.view(np.uint8).reshape(-1, 2)


def main():
    generator = np.random.default_rng(16)
    tensors = {}
    for name, entries in ENTRIES.items():
        kind = gguf.GGMLQuantizationType[name]
        _, size = gguf.GGML_QUANT_SIZES[kind]
        of_block = 64 if name.startswith("IQ3") else 32
        count = entries // of_block
        blocks = generator.integers(0, 256, (count, size), dtype=np.uint8)
        put_indices(name, blocks, generator.permutation(entries).reshape(count, of_block))
        scales = generator.normal(size=count) * 0.1
        scales[:4] = [0, 2.0**-24, 65504, -scales[3]]
        put_scales(name, blocks, scales)
        tensors[name + ".bytes"] = blocks
        tensors[name + ".values"] = dequantize(blocks, kind).astype(np.float32).reshape(-1)
    save_file(tensors, HERE / "iq_blocks.safetensors", metadata={"gguf": version("gguf"), "numpy": np.__version__})


main()
