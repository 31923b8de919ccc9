#!/usr/bin/env python3
"""The peers of `lathe-bench matmul`: the same square products by numpy's OpenBLAS, or by PyTorch (MKL in f32, oneDNN in bf16).

    blas_products.py openblas|torch [--sizes 512,1024,2048,3072] [--dtype f32|bf16] [--threads 2] [--right transposed|plain]

Prints JSON: GFLOP/s by size, the median of the repetitions, and what the library says of itself. OpenBLAS chooses its kernels for the
machine unless OPENBLAS_CORETYPE says otherwise (bench/peers/run clears it).
"""

import argparse
import ctypes
import json
import math
import os
import statistics
import sys
import time
from pathlib import Path


def openblas_config(numpy):
    for path in (Path(numpy.__file__).parents[1] / "numpy.libs").glob("lib*openblas*"):
        library = ctypes.CDLL(str(path))
        for name in ("scipy_openblas_get_config64_", "scipy_openblas_get_config", "openblas_get_config64_", "openblas_get_config"):
            if hasattr(library, name):
                function = getattr(library, name)
                function.restype = ctypes.c_char_p
                return function().decode()
    return "a BLAS that numpy was linked with"


def numpy_side(options):
    import numpy
    random = numpy.random.default_rng(1)

    def product(size):
        a, b = (random.uniform(-1, 1, (size, size)).astype(numpy.float32) for _ in range(2))
        out = numpy.empty_like(a)
        right = b.T if options.right == "transposed" else b
        return lambda: numpy.matmul(a, right, out=out)

    return product, openblas_config(numpy)


def torch_side(options):
    import torch
    torch.set_num_threads(options.threads)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[options.dtype]

    def product(size):
        a, b = (torch.rand(size, size).mul_(2).sub_(1).to(dtype) for _ in range(2))
        out = torch.empty(size, size, dtype=dtype)
        right = b.T if options.right == "transposed" else b
        return lambda: torch.mm(a, right, out=out)

    return product, f"PyTorch {torch.__version__}, {torch.backends.cpu.get_cpu_capability()}"


def seconds_of(call, options):
    def timed(calls):
        start = time.perf_counter()
        for _ in range(calls):
            call()
        return (time.perf_counter() - start) / calls

    timed(1)
    calls = max(1, math.ceil(options.seconds / timed(1)))
    return statistics.median(timed(calls) for _ in range(options.repetitions))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=("openblas", "torch"))
    parser.add_argument("--sizes", type=lambda text: [int(size) for size in text.split(",")], default=[512, 1024, 2048, 3072])
    parser.add_argument("--dtype", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--right", choices=("transposed", "plain"), default="transposed")
    parser.add_argument("--seconds", type=float, default=0.1)
    for name, value in (("threads", 2), ("repetitions", 5)):
        parser.add_argument("--" + name, type=int, default=value)
    options = parser.parse_args()
    if options.library == "openblas" and options.dtype == "bf16":
        sys.exit("numpy has no bf16")
    # Before the library is loaded.
    os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = str(options.threads)
    product, version = numpy_side(options) if options.library == "openblas" else torch_side(options)
    results = [{"size": size, "gflops": 2 * size**3 / seconds_of(product(size), options) / 1e9} for size in options.sizes]
    print(json.dumps({"library": options.library, "version": version, "dtype": options.dtype, "threads": options.threads, "results": results}))


if __name__ == "__main__":
    main()
