#!/usr/bin/env python3
"""Adapters whose configurations choose modules in PEFT's subtler ways, each with the logits that PEFT gives (logits_matching.safetensors)."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

sys.path.insert(0, str(oracle.HERE / "lora_sft"))
from save import save_adapter  # noqa: E402

HERE = Path(__file__).resolve().parent
ADAPTERS = {
    # The first key that matches counts, in the order of the file.
    "alpha_order": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "alpha_pattern": {"q_proj": 4, "layers.0.self_attn.q_proj": 64}},
    # Python's syntax: lookbehind, flags, named groups, \Z.
    "lookbehind": {"r": 2, "lora_alpha": 4, "target_modules": r"(?i).*(?<!LAYERS\.0\.self_attn)\.(?P<letter>q)_proj\Z"},
    "excluded": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"], "exclude_modules": ["model.layers.0.self_attn.q_proj", "layers.1.mlp.down_proj"]},
    "excluded_regex": {"r": 2, "lora_alpha": 4, "target_modules": "all-linear", "exclude_modules": r".*\.(mlp\..*|[kv]_proj)"},
    "layers_pattern": {"r": 2, "lora_alpha": 4, "target_modules": ["o_proj"], "layers_to_transform": 1, "layers_pattern": "layers"},
}


def main():
    torch.set_num_threads(1)
    ids = torch.tensor([json.loads((HERE / "input.json").read_text())["input_ids"]])
    logits = {}
    with torch.no_grad():
        base = tiny.load()(input_ids=ids).logits[0]
        for seed, (name, options) in enumerate(ADAPTERS.items()):
            torch.manual_seed(200 + seed)
            model = get_peft_model(tiny.load(), LoraConfig(task_type="CAUSAL_LM", **options)).eval()
            for parameter_name, p in model.named_parameters():
                if "lora_B" in parameter_name:
                    p.data = 0.1 * torch.randn_like(p)
            save_adapter(model, HERE / name)
            config_path = HERE / name / "adapter_config.json"
            config = json.loads(config_path.read_text())
            config["alpha_pattern"] = options.get("alpha_pattern", {})  # PEFT sorts the keys when it saves
            config_path.write_text(json.dumps(config, indent=2))
            loaded = PeftModel.from_pretrained(tiny.load(), HERE / name).eval()
            logits[name] = loaded(input_ids=ids).logits[0].contiguous()
            assert torch.equal(logits[name], model(input_ids=ids).logits[0]), name
            assert (logits[name] - base).abs().max() > 1e-3, name
            print(name, len(load_file(HERE / name / "adapter_model.safetensors")), "tensors")
    save_file(logits, HERE / "logits_matching.safetensors")


main()
