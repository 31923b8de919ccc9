#!/usr/bin/env python3
"""check_adapter.py MODEL_DIR ADAPTER_DIR INPUT.json [EXPECTED.safetensors [NAME]]

The logits that PEFT gives for an adapter that Lathe wrote. INPUT.json: {"input_ids": [...]}. MODEL_DIR is a Hugging Face directory, or the path of
a .gguf file. Prints {"shape", "logits"} as JSON; with EXPECTED (Lathe's logits, tensor NAME or the only one) it prints the greatest difference
instead and fails above 1e-4. Also fails if PEFT did not find a tensor for every adapted weight, or left one of the file unused: PEFT itself says nothing.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import torch  # noqa: E402
from peft import PeftModel, get_peft_model_state_dict  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    path = Path(sys.argv[1])
    base = oracle.smollm2_model(path) if path.suffix == ".gguf" else AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    model = PeftModel.from_pretrained(base, sys.argv[2]).eval()
    wanted = get_peft_model_state_dict(model)
    given = load_file(Path(sys.argv[2]) / "adapter_model.safetensors")
    if wanted.keys() != given.keys():
        sys.exit(f"keys differ: missing {sorted(wanted.keys() - given.keys())}, unused {sorted(given.keys() - wanted.keys())}")
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([json.loads(Path(sys.argv[3]).read_text())["input_ids"]])).logits[0]
    if len(sys.argv) == 4:
        print(json.dumps({"shape": list(logits.shape), "logits": logits.flatten().tolist()}))
        return
    expected = load_file(sys.argv[4])
    difference = (expected[sys.argv[5]] if len(sys.argv) > 5 else next(iter(expected.values()))).sub(logits).abs().max().item()
    print(f"greatest difference {difference:.3g}")
    sys.exit(difference > 1e-4)


main()
