#!/usr/bin/env python3
"""Two random gpt-oss as Hugging Face directories and as GGUF, with logits, loss and the gradient of every parameter: one whose experts are
dense, and one that has them in MXFP4."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402
from transformers import GptOssConfig, GptOssForCausalLM  # noqa: E402
from transformers.integrations.mxfp4 import convert_moe_packed_tensors  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)


def random_model(seed):
    """Sinks far from zero, and biases of the experts that reach beyond the limits of their activation."""
    torch.manual_seed(seed)
    rope = {"rope_type": "yarn", "rope_theta": 150000.0, "factor": 4.0, "beta_fast": 4.0, "beta_slow": 1.0, "truncate": False,
            "original_max_position_embeddings": 32}
    config = GptOssConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=32,
                          num_local_experts=4, num_experts_per_tok=2, vocab_size=96, max_position_embeddings=128, sliding_window=8,
                          rope_parameters=rope, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.2,
                          experts_implementation="eager")
    model = tiny.with_random_vectors(GptOssForCausalLM(config).float().eval())
    for name, p in model.named_parameters():
        if name.endswith("sinks"):
            p.data = 2 + 2 * torch.randn_like(p)
        elif name.endswith("gate_up_proj_bias"):
            p.data = 5 * torch.randn_like(p)
        elif name.endswith("_bias"):
            p.data = 0.2 * torch.randn_like(p)
    return model


def packed_experts(model):
    """Random blocks and scales for the experts' matrices, and what they stand for put into the model."""
    packed = {}
    for name, p in model.named_parameters():
        if not name.endswith(("gate_up_proj", "down_proj")):
            continue
        experts, columns, rows = p.shape
        blocks = torch.randint(0, 256, (experts, rows, columns // 32, 16), dtype=torch.uint8)
        scales = torch.randint(121, 125, (experts, rows, columns // 32), dtype=torch.uint8)
        p.data = convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16).float()
        packed |= {name + "_blocks": blocks, name + "_scales": scales}
    return packed


def pack(folder, packed):
    """The same directory as openai/gpt-oss-20b has it."""
    dense = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if name + "_blocks" not in packed}
    save_file({**dense, **packed}, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4",
                                     "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router", "model.embed_tokens",
                                                                "lm_head"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


for seed, name in enumerate(("dense", "mxfp4"), start=60):
    folder = HERE / name
    model = random_model(seed)
    packed = packed_experts(model) if name == "mxfp4" else {}
    model.save_pretrained(folder)
    sequences = tiny.sequences([5, 37, 40], seed=seed, vocabulary=96)
    tiny.write_expected(folder, GptOssForCausalLM, sequences, greedy=sequences[1][:9])
    tiny.write_gguf(folder, GptOssForCausalLM, "gpt-oss", packed)
    if packed:
        widened = {n: p for n, p in model.state_dict().items() if n + "_blocks" in packed}
        save_file({n: p.bfloat16().contiguous() for n, p in widened.items()}, folder / "widened.safetensors")
        pack(folder, packed)
oracle.write_versions(HERE)
