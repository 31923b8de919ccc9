#!/usr/bin/env python3
"""make_blocks.py: blocks of every ggml type that Lathe reads, of random bytes with scales of moderate size, and what the gguf package makes of them."""
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
# Where the f16 scales stand in a block.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "IQ4_NL": [0], "IQ4_XS": [0]}


def main():
    generator = np.random.default_rng(7)
    tensors = {}
    for name, places in SCALES.items():
        kind = gguf.GGMLQuantizationType[name]
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = generator.integers(0, 256, (768 // elements if elements < 256 else 3, size), dtype=np.uint8)
        for place in places:
            blocks[:, place:place + 2] = (generator.normal(size=(len(blocks), 1)) * 0.1).astype(np.float16).view(np.uint8).reshape(-1, 2)
        tensors[name + ".bytes"] = blocks
        tensors[name + ".values"] = dequantize(blocks, kind).astype(np.float32).reshape(-1)
    save_file(tensors, HERE / "blocks.safetensors")
    (HERE / "versions.txt").write_text(f"gguf {__import__('importlib.metadata').metadata.version('gguf')}\nnumpy {np.__version__}\n")


main()
