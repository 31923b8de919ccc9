#!/usr/bin/env python3
"""Random Granite 4.0s as Hugging Face directories, with logits, loss and the gradient of every parameter. dense: attention in all layers, which turns q and
k. hybrid: Mamba-2 in most layers, attention without positions in one. experts: with experts beside the block that all tokens go through, and a
convolution without bias. All three as GGUF. options: what GGUF has no key for, biases and steps within limits."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import GraniteMoeHybridConfig, GraniteMoeHybridForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
SHARED = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, shared_intermediate_size=40, vocab_size=96, max_position_embeddings=128,
              bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.15, embedding_multiplier=3.0, attention_multiplier=0.25,
              residual_multiplier=0.4, logits_scaling=3.0)
MAMBA = dict(mamba_n_heads=4, mamba_d_head=16, mamba_d_state=24, mamba_expand=2)
MODELS = {"dense": dict(num_hidden_layers=2, intermediate_size=40, num_local_experts=0, layer_types=["full_attention"] * 2, tie_word_embeddings=True,
                        position_embedding_type="rope", rope_theta=10000.0, mamba_n_heads=4, mamba_d_head=16),
          "hybrid": dict(num_hidden_layers=3, intermediate_size=40, num_local_experts=0, tie_word_embeddings=True, position_embedding_type="nope",
                         layer_types=["linear_attention", "full_attention", "linear_attention"], **MAMBA),
          "experts": dict(num_hidden_layers=2, intermediate_size=16, num_local_experts=6, num_experts_per_tok=3, tie_word_embeddings=False,
                          position_embedding_type="nope", layer_types=["linear_attention", "full_attention"], mamba_conv_bias=False,
                          experts_implementation="eager", **MAMBA),
          "options": dict(num_hidden_layers=2, intermediate_size=40, num_local_experts=0, tie_word_embeddings=False, attention_bias=True,
                          position_embedding_type="rope", rope_theta=10000.0, layer_types=["full_attention", "linear_attention"], mamba_d_conv=3,
                          mamba_proj_bias=True, time_step_limit=(0.3, 1.5), **MAMBA)}
torch.set_num_threads(1)


def with_random_decays(model):
    """They all begin alike."""
    for name, p in model.named_parameters():
        if name.endswith(("dt_bias", "A_log")):
            p.data = 0.7 * torch.randn_like(p)
        if name.endswith("mamba.D"):
            p.data = 1 + 0.3 * torch.randn_like(p)
    return model


for number, (name, own) in enumerate(MODELS.items()):
    torch.manual_seed(140 + number)
    model = with_random_decays(tiny.with_random_vectors(GraniteMoeHybridForCausalLM(GraniteMoeHybridConfig(**SHARED, **own)).float().eval()))
    model.save_pretrained(HERE / name)
    sequences = tiny.sequences([5, 37, 70], seed=150 + number, vocabulary=96)
    tiny.write_expected(HERE / name, GraniteMoeHybridForCausalLM, sequences, greedy=sequences[1][:9])
    if name != "options":
        tiny.write_gguf(HERE / name, GraniteMoeHybridForCausalLM, "granitehybrid")
oracle.write_versions(HERE)
