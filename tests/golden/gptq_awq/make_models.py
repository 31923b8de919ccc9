#!/usr/bin/env python3
"""tiny_llama31 with its linears in GPTQ's and AWQ's forms, and the logits of transformers' model with the f16 weights that these stand for, in float64.

GPTQ: symmetric (every zero is 8), columns in another order (desc_act), first format. AWQ: with zeros, for GEMM. Groups of 16.
"""
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import make  # noqa: E402
import numpy as np  # noqa: E402
import oracle  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402

HERE, BASE = Path(__file__).resolve().parent, oracle.HERE / "tiny_llama31"
BITS, GROUP = 4, 16
torch.set_num_threads(1)


def pack_gptq(weight, rng):
    """weight [out, in] f32 → its parts, and what they stand for."""
    columns = weight.T.double()
    g_idx = torch.tensor(rng.permutation(np.arange(columns.shape[0]) // GROUP))
    groups = int(g_idx.max()) + 1
    scales = torch.stack([columns[g_idx == g].abs().amax(0) / 7 for g in range(groups)]).half()
    codes = (columns / scales[g_idx].double()).round().clamp(-8, 7).long() + 8
    zeros = np.full((groups, columns.shape[1]), 8)
    parts = {"qweight": torch.tensor(make.bit_stream(codes.numpy(), BITS)), "qzeros": torch.tensor(make.bit_stream(zeros.T - 1, BITS).T.copy()),
             "scales": scales, "g_idx": g_idx.int()}
    return parts, (scales[g_idx] * (codes - 8).half()).T


def pack_awq(weight, rng):
    columns = weight.T.double()
    groups = columns.reshape(-1, GROUP, columns.shape[1])
    least, most = groups.amin(1).clamp(max=0), groups.amax(1).clamp(min=0)
    scales = ((most - least) / 15).half()
    zeros = (-least / scales.double()).round().clamp(0, 15).long()
    spread = lambda rows: rows.repeat_interleave(GROUP, 0)
    codes = ((columns / spread(scales).double()).round().long() + spread(zeros)).clamp(0, 15)
    parts = {"qweight": make.awq_words(codes.numpy()), "qzeros": make.awq_words(zeros.numpy()), "scales": scales}
    return parts, (spread(scales) * (codes - spread(zeros)).half()).T


FORMS = {"gptq": (pack_gptq, {"quant_method": "gptq", "bits": BITS, "group_size": GROUP, "desc_act": True, "sym": True, "checkpoint_format": "gptq"}),
         "awq": (pack_awq, {"quant_method": "awq", "bits": BITS, "group_size": GROUP, "zero_point": True, "version": "gemm"})}
for name, (pack, quantization) in FORMS.items():
    rng = np.random.default_rng(9)
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    stored, dense = {}, {}
    for key, weight in load_file(BASE / "model.safetensors").items():
        if not key.endswith("_proj.weight"):
            stored[key] = dense[key] = weight.half()
            continue
        parts, values = pack(weight, rng)
        module = key.removesuffix(".weight")
        stored.update({f"{module}.{part}": tensor.contiguous() for part, tensor in parts.items()})
        dense[key] = values.contiguous()
    save_file(stored, folder / "model.safetensors")
    config = json.loads((BASE / "config.json").read_text())
    config["quantization_config"] = quantization
    oracle.write_json(folder / "config.json", config, indent=1)
    model = LlamaForCausalLM.from_pretrained(BASE, dtype=torch.float64)
    model.load_state_dict({key: tensor.double() for key, tensor in dense.items()})
    ids = json.loads((BASE / "expected.json").read_text())["input_ids"][1]
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([ids])).logits[0, -1]
    oracle.write_json(folder / "expected.json", {"input_ids": ids, "logits": [float(f"{x:.7g}") for x in logits.tolist()]})
