#!/usr/bin/env python3
"""Adapters of the tiny Qwen3 that do more than LoRA on linears, as PEFT saves them, each with PEFT's logits and gradients in float64."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, PeftModel, get_peft_model  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import Qwen3ForCausalLM  # noqa: E402

sys.path.insert(0, str(oracle.HERE / "lora_sft"))
from save import save_adapter  # noqa: E402

HERE = Path(__file__).resolve().parent
IDS = tiny.sequences([5, 21, 34], seed=31, vocabulary=96)
ADAPTERS = {
    "dora": ("untied", {"r": 2, "lora_alpha": 6, "use_dora": True, "target_modules": "all-linear", "rank_pattern": {"v_proj": 3}}),
    "saved": ("tied", {"r": 2, "lora_alpha": 4, "use_dora": True, "target_modules": ["q_proj", "up_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    "saved_embedding": ("tied", {"r": 2, "lora_alpha": 4, "target_modules": ["o_proj"], "modules_to_save": ["embed_tokens"]}),
    "embedding": ("untied", {"r": 3, "lora_alpha": 6, "target_modules": ["embed_tokens", "k_proj"]}),
    "embedding_tied": ("tied", {"r": 2, "lora_alpha": 2, "use_rslora": True, "target_modules": ["embed_tokens", "down_proj"]}),
}


def base(name):
    return Qwen3ForCausalLM.from_pretrained(oracle.HERE / "tiny_qwen3" / name, dtype=torch.float32).eval()


def saved_name(name):
    """The key under which PEFT saves a parameter."""
    name = name.replace(".modules_to_save.default", "").replace(".default", "")
    return name.removesuffix(".weight") if name.endswith("magnitude_vector.weight") else name


def main():
    torch.set_num_threads(1)
    for seed, (name, (model_name, options)) in enumerate(ADAPTERS.items()):
        torch.manual_seed(400 + seed)
        model = get_peft_model(base(model_name), LoraConfig(task_type="CAUSAL_LM", **options)).eval()
        for parameter_name, p in model.named_parameters():
            if "lora_B" in parameter_name or "lora_embedding_A" in parameter_name:
                p.data = 0.2 * torch.randn_like(p)
            elif "lora_embedding_B" in parameter_name:
                p.data = 0.1 * p.data
            elif "magnitude" in parameter_name:
                p.data = p.data * (1 + 0.2 * torch.randn_like(p))
            elif "modules_to_save" in parameter_name:
                p.data = p.data + 0.05 * torch.randn_like(p)
        save_adapter(model, HERE / name)
        loaded = PeftModel.from_pretrained(base(model_name), HERE / name, is_trainable=True).eval()
        _, _, logits, gradients = tiny.run(loaded, torch.float64, IDS)
        gradients = {f"grad.{saved_name(n)}": g for n, g in gradients.items()}
        save_file({**logits, **gradients}, HERE / name / "expected.safetensors")
        with torch.no_grad():
            plain = base(model_name)(input_ids=torch.tensor([IDS[2]])).logits[0]
        assert (logits["logits.2"] - plain).abs().max() > 1e-1, name
        print(name, sorted(gradients)[-3:])
    oracle.write_json(HERE / "input.json", {"input_ids": IDS, "labels": [tiny.labels_of(ids, i) for i, ids in enumerate(IDS)]})
    oracle.write_versions(HERE)


main()
