#!/usr/bin/env python3
"""check_written.py LATHE_MODEL: what transformers and bitsandbytes dequantise from what `lathe-model quantize` writes, to written.json.

tests/nn/weights/bitsandbytes_test.cpp writes the same models and compares the hashes with what Lathe itself reads back. The weights are loaded by
transformers, so that a key that it did not find would show. A file that is there is compared, not replaced.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bitsandbytes.functional as bnb  # noqa: E402
import oracle  # noqa: E402, F401
import torch  # noqa: E402
import xxhash  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent


def hashes(folder):
    model, info = AutoModelForCausalLM.from_pretrained(folder, device_map="cpu", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    found = {}
    for name, module in model.named_modules():
        if type(module).__name__ == "Linear4bit":
            values = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state)
            found[name + ".weight"] = xxhash.xxh64(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    assert len(found) == 7 * model.config.num_hidden_layers, found
    model(input_ids=torch.tensor([[1, 2, 3]]))
    return found


def main():
    torch.set_num_threads(1)
    written = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, flags in (("plain", []), ("nested", ["--bnb_4bit_use_double_quant"])):
            out = Path(scratch) / name
            subprocess.run([sys.argv[1], "quantize", HERE / "source", out, *flags], check=True)
            written[name] = hashes(out)
    path = HERE / "written.json"
    if path.exists():
        assert json.loads(path.read_text()) == written, written
        print("as before")
    else:
        path.write_text(json.dumps(written, indent=0) + "\n")


main()
