#!/usr/bin/env python3
"""check_written.py FOLDER: adapters that Lathe wrote, loaded beside their bases in PEFT, which must give Lathe's logits within 1e-4.

    LATHE_WRITTEN_ADAPTERS=FOLDER ctest --test-dir build -R nn_written_adapters && python check_written.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from peft import PeftModel, get_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

GOLDEN = Path(__file__).resolve().parent.parent


def difference(folder):
    given = json.loads((folder / "input.json").read_text())
    base = AutoModelForCausalLM.from_pretrained(GOLDEN / given["model"], dtype=torch.float32)
    model = PeftModel.from_pretrained(base, folder).eval()
    wanted, found = get_peft_model_state_dict(model), load_file(folder / "adapter_model.safetensors")
    if wanted.keys() != found.keys():
        sys.exit(f"{folder.name}: keys differ: missing {sorted(wanted.keys() - found.keys())}, unused {sorted(found.keys() - wanted.keys())}")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([given["input_ids"]])).logits[0]
    return (logits - load_file(folder / "logits.safetensors")["logits"]).abs().max().item()


def main():
    torch.set_num_threads(1)
    folders = sorted(folder.parent for folder in Path(sys.argv[1]).glob("*/adapter_config.json"))
    differences = {folder.name: difference(folder) for folder in folders}
    for name, value in differences.items():
        print(f"{name:24} {value:.2g}")
    sys.exit(not differences or max(differences.values()) > 1e-4)


main()
