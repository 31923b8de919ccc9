#!/usr/bin/env python3
"""make_mxfp4.py: a block of MXFP4 for each exponent, of random codes, and what the gguf package makes of them."""
from importlib.metadata import version
from pathlib import Path

import gguf
import numpy as np
from gguf.quants import dequantize
from safetensors.numpy import save_file

HERE = Path(__file__).resolve().parent
blocks = np.random.default_rng(39).integers(0, 256, (256, 17), dtype=np.uint8)
blocks[:, 0] = np.arange(256)
with np.errstate(over="ignore"):
    values = dequantize(blocks, gguf.GGMLQuantizationType.MXFP4).astype(np.float32)
made_by = {"gguf": version("gguf"), "numpy": np.__version__}
save_file({"bytes": blocks, "values": values}, HERE / "mxfp4.safetensors", metadata=made_by)
