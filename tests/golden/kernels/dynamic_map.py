#!/usr/bin/env python3
"""bitsandbytes' dynamic 8-bit maps, as it makes them on an x86-64 machine (bitsandbytes 0.50.2, torch 2.10.0)."""

from pathlib import Path

import torch
from bitsandbytes.functional import create_dynamic_map
from safetensors.torch import save_file

torch.set_num_threads(1)
save_file({"signed": create_dynamic_map(signed=True), "unsigned": create_dynamic_map(signed=False)},
          Path(__file__).resolve().parent / "dynamic_map.safetensors")
