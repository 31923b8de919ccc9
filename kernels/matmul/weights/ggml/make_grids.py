#!/usr/bin/env python3
"""make_grids.py: writes grid_codes.h beside itself: the grids of ggml's IQ formats, as the gguf package (0.19.0) knows them.

The grids are facts of the formats: which lists of 8 (IQ1, IQ2) or 4 (IQ3) magnitudes an index stands for. Here an entry is a number of 16 bits with the codes of
its neighbours, 2 or 4 bits each, the first one's lowest; `values` are what codes stand for, of IQ1 in eighths, whose delta is one eighth.
"""
from importlib.metadata import version
from pathlib import Path

import gguf.quants
import numpy as np

EIGHTHS = {"IQ1_S"}


def main():
    lines = [f"// Made by make_grids.py with gguf {version('gguf')}: the grids of grids.h.", "#pragma once", "",
             '#include "kernels/matmul/weights/ggml/grids.h"', "", "namespace lathe::kernels::ggml {", "", "// clang-format off"]
    for name in ("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S"):
        kind = getattr(gguf.quants, name)
        kind.init_grid()
        grid = kind.grid.reshape(-1, kind.grid.shape[-1]) * (8 if name in EIGHTHS else 1)
        values, codes = np.unique(grid, return_inverse=True)
        codes = codes.reshape(grid.shape)
        entries = (codes.astype(np.int64) << (16 // grid.shape[1] * np.arange(grid.shape[1]))).sum(axis=1)
        lines.append(f"inline constexpr Grid<{grid.shape[0]}, {grid.shape[1]}> {name.lower()}_grid = {{")
        lines.append("  {" + ", ".join(str(int(value)) for value in values) + "},")
        rows = [", ".join(f"{entry:#06x}" for entry in entries[at:at + 14]) for at in range(0, len(entries), 14)]
        lines.append("  {" + ",\n   ".join(rows) + "}};")
    lines += ["// clang-format on", "", "}  // namespace lathe::kernels::ggml", ""]
    Path(__file__).with_name("grid_codes.h").write_text("\n".join(lines))


main()
