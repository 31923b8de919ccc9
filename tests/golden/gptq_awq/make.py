#!/usr/bin/env python3
"""make.py AUTOAWQ_SOURCE: linears as GPTQ and AWQ pack them, and the f16 weights that they stand for.

AUTOAWQ_SOURCE is the unpacked source distribution of autoawq 0.2.9, whose dequantize_gemm is plain torch and is loaded from its file (the
package imports CUDA kernels). GPTQ's is TorchLinear.dequantize_weight of gptqmodel 7.7.0 as a formula. Packing is by the formulas of
AutoGPTQ's pack() and autoawq's WQLinear_GEMM.from_linear. Codes are random: every one occurs, and zeros of 0 and of the largest.
"""
import importlib.util
import pathlib
import sys

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
AWQ_COLUMNS = [0, 2, 4, 6, 1, 3, 5, 7]


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def bit_stream(codes, bits):
    """[n, m] codes → [n · bits / 32, m] words: along the first dimension, from the lowest bit."""
    n, m = codes.shape
    stream = ((codes[:, None, :] >> np.arange(bits)[None, :, None]) & 1).reshape(n * bits // 32, 32, m)
    return (stream.astype(np.uint64) << np.arange(32, dtype=np.uint64)[None, :, None]).sum(1).astype(np.uint32).view(np.int32)


def gptq(rng, n_in, n_out, group, bits, act_order=False, v2=False):
    groups = n_in // group
    codes = rng.integers(0, 2**bits, (n_in, n_out))
    zeros = rng.integers(0, 2**bits, (groups, n_out))
    scales = torch.tensor(rng.uniform(0.001, 0.02, (groups, n_out))).half()
    g_idx = np.arange(n_in) // group
    if act_order:
        g_idx = rng.permutation(g_idx)
    qzeros = bit_stream(zeros.T, bits).T.copy()
    if not v2 and bits == 3:  # each field alone
        qzeros = bit_stream(((zeros - 1) % 8).T, bits).T.copy()
    elif not v2:  # gptqmodel's convert_gptq_v2_to_v1_format: one less in every field, as 32-bit words
        ones = np.uint32(sum(1 << at for at in range(0, 32, bits)))
        qzeros = (qzeros.view(np.uint32) - ones).view(np.int32)
    # gptqmodel's TorchLinear: weights = scales[g_idx] * (weight - zeros[g_idx]), in f16
    index = torch.tensor(g_idx)
    weight = scales[index] * (torch.tensor(codes) - torch.tensor(zeros)[index]).half()
    return {"qweight": torch.tensor(bit_stream(codes, bits)), "qzeros": torch.tensor(qzeros), "scales": scales,
            "g_idx": index.int(), "dequantized": weight.T.contiguous()}


def awq_words(codes):
    packed = np.zeros((codes.shape[0], codes.shape[1] // 8), np.uint32)
    for i in range(8):
        packed |= codes[:, [8 * c + AWQ_COLUMNS[i] for c in range(packed.shape[1])]].astype(np.uint32) << np.uint32(4 * i)
    return torch.tensor(packed.view(np.int32))


def awq(rng, n_in, n_out, group, packing):
    qweight = awq_words(rng.integers(0, 16, (n_in, n_out)))
    qzeros = awq_words(rng.integers(0, 16, (n_in // group, n_out)))
    scales = torch.tensor(rng.uniform(0.001, 0.02, (n_in // group, n_out))).half()
    weight = packing.dequantize_gemm(qweight, qzeros, scales, 4, group)
    return {"qweight": qweight, "qzeros": qzeros, "scales": scales, "dequantized": weight.T.contiguous()}


if __name__ == "__main__":
    packing = module_of(pathlib.Path(sys.argv[1]) / "awq/utils/packing_utils.py")
    rng = np.random.default_rng(5)
    cases = {
        "gptq4": gptq(rng, 128, 32, 32, 4),
        "gptq4_act_order": gptq(rng, 128, 32, 32, 4, act_order=True),
        "gptq4_one_group": gptq(rng, 64, 32, 64, 4),
        "gptq4_v2": gptq(rng, 128, 32, 32, 4, v2=True),
        "gptq2": gptq(rng, 64, 32, 32, 2),
        "gptq3": gptq(rng, 64, 32, 32, 3),
        "gptq8": gptq(rng, 64, 32, 32, 8),
        "awq4": awq(rng, 128, 32, 32, packing),
    }
    save_file({f"{case}.{name}": tensor.contiguous() for case, parts in cases.items() for name, tensor in parts.items()},
              HERE / "linears.safetensors")
    (HERE / "versions.txt").write_text(f"autoawq 0.2.9 (awq/utils/packing_utils.py)\ngptqmodel 7.7.0 (formulas)\ntorch {torch.__version__}\nnumpy {np.__version__}\n")
