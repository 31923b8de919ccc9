#!/usr/bin/env python3
"""make.py [FAMILY …]: PEFT on the tiny models of the families: an adapter of every linear, with experts of attention alone, its loss in ten steps of
gradient descent and what it is after them, computed in float64."""

import json
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from peft import LoraConfig, get_peft_model  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
FAMILIES = {"phi3": "tiny_phi3/window", "gemma2": "tiny_gemma2", "gemma3": "tiny_gemma3", "olmo2": "tiny_olmo2", "granite": "tiny_granite",
            "qwen2": "tiny_qwen2/plain", "smollm3": "tiny_smollm3", "mixtral": "tiny_mixtral", "qwen3_moe": "tiny_qwen3_moe/some",
            "llama": "tiny_llama31", "mistral": "tiny_mistral/window", "qwen3": "tiny_qwen3/untied", "olmo3": "tiny_olmo3", "gpt_oss": "tiny_gpt_oss/dense",
            "mixtral_experts": "tiny_mixtral", "qwen3_moe_experts": "tiny_qwen3_moe/some", "gpt_oss_experts": "tiny_gpt_oss/dense",
            "gpt_oss_down": "tiny_gpt_oss/dense", "olmoe": "tiny_olmoe", "granitemoe": "tiny_granite_moe",
            "granitemoe_experts": "tiny_granite_moe", "lfm2": "tiny_lfm2/plain", "qwen2_moe": "tiny_qwen2_moe/some",
            "qwen2_moe_experts": "tiny_qwen2_moe/all", "qwen3_5": "tiny_qwen3_5/text", "qwen3_5_moe": "tiny_qwen3_5_moe/text",
            "qwen3_5_moe_experts": "tiny_qwen3_5_moe/tied", "qwen3_next": "tiny_qwen3_next/some",
            "lfm2_moe": "tiny_lfm2_moe/plain", "lfm2_moe_experts": "tiny_lfm2_moe/biased",
            "ministral3": "tiny_ministral3", "exaone4": "tiny_exaone4/windows", "seed_oss": "tiny_seed_oss", "granite4": "tiny_granite4/hybrid"}
EXPERTS = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
BLOCKS = {"tiny_granite_moe": "block_sparse_moe", "tiny_lfm2_moe": "feed_forward"}
LEARNING_RATE, STEPS = 0.05, 10
LEARNING_RATES = {"qwen3_5": 0.005, "qwen3_5_moe": 0.005, "qwen3_5_moe_experts": 0.005, "qwen3_next": 0.005}  # where steps of that size go to and fro, and make much of the last digits
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]  # "all-linear" would go into the tensors that hold all experts
SHARED = ["gate_proj", "up_proj", "down_proj", "shared_expert_gate"]  # and of layers that have none of them
DELTA = {"qwen3_5": ["in_proj_qkv", "in_proj_z", "in_proj_b", "in_proj_a", "out_proj"], "qwen3_next": ["in_proj_qkvz", "in_proj_ba", "out_proj"]}
SEEDS = {"ministral3": 85, "exaone4": 86, "seed_oss": 87, "granite4": 85}  # where others have come before them since
torch.set_num_threads(1)


def linears_beside_experts(base):
    delta = [linear for family, linears in DELTA.items() if family in base for linear in linears]
    if "lfm2_moe" in base:
        return ATTENTION[:3] + ["in_proj", "out_proj", "w1", "w2", "w3"]
    if "qwen3_next" in base:  # whose gate, up and down PEFT takes for those of experts
        return ATTENTION + delta + SHARED[3:]
    return ATTENTION + delta + (SHARED if delta or "qwen2_moe" in base else [])


for number, (name, base) in enumerate(FAMILIES.items()):
    if sys.argv[1:] and name not in sys.argv[1:]:
        continue
    torch.manual_seed(SEEDS.get(name, 60 + number))
    folder = HERE / name
    has_experts = any(word in base for word in ("mixtral", "moe", "gpt_oss", "qwen3_next"))
    model = tiny.load_eager(AutoModelForCausalLM, oracle.HERE / base)
    experts = [module.replace("mlp", BLOCKS.get(base.split("/")[0], "mlp")) for module in EXPERTS]
    parameters = experts if name.endswith("_experts") else experts[1:] if name.endswith("_down") else None
    model = get_peft_model(model, LoraConfig(r=2, lora_alpha=4, target_modules=linears_beside_experts(base) if has_experts else "all-linear",
                                             target_parameters=parameters, task_type="CAUSAL_LM"))
    for key, p in model.named_parameters():
        if "lora_B" in key:
            p.data = 0.1 * torch.randn_like(p)
    model.peft_config["default"].base_model_name_or_path = base
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    model = model.double()
    expected = json.loads((oracle.HERE / base / "expected.json").read_text())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=(rate := LEARNING_RATES.get(name, LEARNING_RATE)))
    losses = []
    for _ in range(STEPS):
        total = 0
        for ids, labels in zip(expected["input_ids"], expected["labels"]):
            out = model(input_ids=torch.tensor([ids])).logits[0]
            total = total + torch.nn.functional.cross_entropy(out[:-1], torch.tensor(labels)[1:], ignore_index=-100, reduction="sum")
        loss = total / expected["num_labels"]
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = {key.replace(".default", ""): p.detach().float().contiguous() for key, p in model.named_parameters() if p.requires_grad}
    save_file(after, folder / "after.safetensors")
    oracle.write_json(folder / "expected.json", {"base": base, "learning_rate": rate, "losses": losses})
oracle.write_versions(HERE)
