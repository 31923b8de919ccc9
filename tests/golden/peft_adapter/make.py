#!/usr/bin/env python3
"""Adapters of the tiny Llama as PEFT saves them, each with the logits that PEFT gives."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

sys.path.insert(0, str(oracle.HERE / "lora_sft"))
from save import save_adapter  # noqa: E402

HERE = Path(__file__).resolve().parent
INPUT = tiny.sequences([23], seed=21)[0]
ADAPTERS = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 8, "lora_alpha": 16, "use_rslora": True, "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj"]},
    "patterns": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj", "down_proj"],
                 "rank_pattern": {"layers.1.self_attn.q_proj": 2, "down_proj": 6}, "alpha_pattern": {"up_proj": 32, "^model.layers.0.mlp.down_proj": 3}},
    "regex": {"r": 3, "lora_alpha": 3, "target_modules": r"model\.layers\.1\.(self_attn|mlp)\.(q|gate)_proj"},
    "all_linear": {"r": 2, "lora_alpha": 5, "target_modules": "all-linear"},
    "lm_head": {"r": 2, "lora_alpha": 4, "target_modules": ["lm_head", "o_proj"]},
    "modules_to_save": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "layers_to_transform": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"], "layers_to_transform": [1]},
}


def main():
    torch.set_num_threads(1)
    ids = torch.tensor([INPUT])
    with torch.no_grad():
        logits = {"base": tiny.load()(input_ids=ids).logits[0].contiguous()}
        for seed, (name, options) in enumerate(ADAPTERS.items()):
            torch.manual_seed(100 + seed)
            model = get_peft_model(tiny.load(), LoraConfig(task_type="CAUSAL_LM", **options)).eval()
            for parameter_name, p in model.named_parameters():
                if "lora_B" in parameter_name:
                    p.data = 0.1 * torch.randn_like(p)
                elif "modules_to_save" in parameter_name:
                    p.data = p.data + 0.02 * torch.randn_like(p)
            save_adapter(model, HERE / name)
            loaded = PeftModel.from_pretrained(tiny.load(), HERE / name).eval()
            logits[name] = loaded(input_ids=ids).logits[0].contiguous()
            assert torch.equal(logits[name], model(input_ids=ids).logits[0]), name
            assert (logits[name] - logits["base"]).abs().max() > 1e-2, name
    save_file(logits, HERE / "logits.safetensors")
    oracle.write_json(HERE / "input.json", {"input_ids": INPUT})
    oracle.write_versions(HERE)


main()
