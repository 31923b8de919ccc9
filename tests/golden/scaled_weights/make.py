#!/usr/bin/env python3
"""Directories of one linear, q_proj, as fp8, compressed-tensors and ModelOpt store it, and what it stands for: by transformers' Fp8Dequantize, which
ModelOpt's one scale goes through as well, and by compressed-tensors' own compressors."""

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import torch  # noqa: E402
from compressed_tensors.compressors import BaseCompressor  # noqa: E402
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers.integrations.finegrained_fp8 import Fp8Dequantize  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.manual_seed(150)
expected = {}


def write(name, parts, dequantized, quantization):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    tensors = {f"q_proj.{part}": tensor.contiguous() for part, tensor in parts.items()}
    save_file({"norm.weight": torch.ones(3), **tensors}, folder / "model.safetensors")
    oracle.write_json(folder / "config.json", {"quantization_config": quantization})
    expected[name] = dequantized.contiguous()


def codes_of_fp8(rows, columns):
    """Every code but those that are no number."""
    codes = torch.randint(0, 256, (rows, columns), dtype=torch.uint8)
    codes[(codes & 127) == 127] = 0
    return codes.view(torch.float8_e4m3fn)


def fp8(name, rows, columns, scales, block=None, modelopt=False):
    """With blocks that the weight does not fill: what it would be with them full, less what is not there."""
    full = codes_of_fp8(*(rows, columns) if block is None else (scales.shape[0] * block[0], scales.shape[1] * block[1]))
    value = Fp8Dequantize(None)._dequantize_one(full, scales, torch.float32)[:rows, :columns]
    weight = full.view(torch.uint8)[:rows, :columns].contiguous().view(torch.float8_e4m3fn)
    if modelopt:
        return write(name, {"weight": weight, "weight_scale": scales, "input_scale": torch.tensor(0.5)}, value,
                     {"quant_method": "modelopt", "quant_algo": "FP8"})
    static = {} if block else {"activation_scale": torch.tensor(0.5)}
    write(name, {"weight": weight, "weight_scale_inv": scales, **static}, value,
          {"quant_method": "fp8", "activation_scheme": "dynamic" if block else "static", "weight_block_size": block})


def compressed(name, format_name, rows, columns, scale_dtype, zero_points=False, **args):
    weights = QuantizationArgs(**args)
    scheme = QuantizationScheme(targets=["Linear"], weights=weights, format=format_name)
    groups = columns // weights.group_size if weights.group_size else 1
    if weights.block_structure:
        shape = (rows // weights.block_structure[0], columns // weights.block_structure[1])
    else:
        shape = (1,) if weights.strategy == "tensor" else (rows, groups)
    scale = (torch.rand(shape) * 0.01 + 0.001).to(scale_dtype)
    largest = 2 ** (weights.num_bits - 1)
    state = {"weight": torch.randn(rows, columns) * 0.01 * (100 if weights.type == "float" else largest / 3), "weight_scale": scale}
    if zero_points:
        state["weight_zero_point"] = torch.randint(-largest, largest, shape, dtype=torch.int8)
    compressor = BaseCompressor.get_value_from_registry(format_name)
    stored = compressor.compress({k: v.clone() for k, v in state.items()}, scheme)
    value = compressor.decompress({k: v.clone() for k, v in stored.items()}, scheme)["weight"]
    assert value.dtype == scale_dtype, value.dtype
    write(name, stored, value, {"quant_method": "compressed-tensors", "format": format_name, "config_groups":
          {"group_0": {"targets": ["Linear"], "weights": weights.model_dump(mode="json")}}, "ignore": ["lm_head"]})


fp8("fp8_blocks", 64, 96, torch.rand(2, 3) * 0.01, block=[32, 32])
fp8("fp8_ragged", 70, 100, torch.rand(3, 4) * 0.01, block=[32, 32])
fp8("fp8_tensor", 24, 40, torch.tensor(0.0123).bfloat16())
fp8("modelopt", 24, 40, torch.tensor(0.0321), modelopt=True)
compressed("float_channel", "float-quantized", 24, 40, torch.bfloat16, num_bits=8, type="float", strategy="channel")
compressed("float_tensor", "float-quantized", 24, 40, torch.float32, num_bits=8, type="float", strategy="tensor")
compressed("float_block", "float-quantized", 64, 96, torch.bfloat16, num_bits=8, type="float", strategy="block", block_structure=[32, 32])
compressed("int_channel", "int-quantized", 24, 40, torch.bfloat16, num_bits=8, strategy="channel")
compressed("int_zeros", "int-quantized", 24, 40, torch.float16, zero_points=True, num_bits=8, strategy="channel", symmetric=False)
compressed("packed_4", "pack-quantized", 24, 128, torch.bfloat16, num_bits=4, strategy="group", group_size=32)
compressed("packed_4_zeros", "pack-quantized", 24, 128, torch.float16, zero_points=True, num_bits=4, strategy="group", group_size=32, symmetric=False)
compressed("packed_8", "pack-quantized", 24, 42, torch.bfloat16, num_bits=8, strategy="channel")
save_file(expected, HERE / "expected.safetensors")
oracle.write_versions(HERE)
with open(HERE / "versions.txt", "a") as versions:
    versions.write(f"compressed-tensors {importlib.metadata.version('compressed-tensors')}\n")
