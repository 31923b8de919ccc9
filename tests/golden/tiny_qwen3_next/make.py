#!/usr/bin/env python3
"""Random Qwen3-Nexts as Hugging Face directories, with logits, loss and the gradient of every parameter. all: experts in every layer, two value heads for
each key head, and as GGUF. some: a first layer without experts, weights of experts that are not divided by their sum, as many value heads as key heads,
three taps, a tied embedding."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen3NextConfig, Qwen3NextForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
SHARED = dict(hidden_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=40, vocab_size=96,
              max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.1, linear_key_head_dim=8,
              linear_num_key_heads=2, num_experts=6, num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=20,
              experts_implementation="eager", rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25})
ALL = dict(num_hidden_layers=4, linear_num_value_heads=4, linear_value_head_dim=16, tie_word_embeddings=False)
SOME = dict(num_hidden_layers=3, layer_types=["linear_attention", "full_attention", "linear_attention"], linear_num_value_heads=2,
            linear_value_head_dim=8, linear_conv_kernel_dim=3, mlp_only_layers=[0], norm_topk_prob=False, tie_word_embeddings=True)
torch.set_num_threads(1)


def make(name, seed, options):
    torch.manual_seed(seed)
    model = tiny.with_random_vectors(Qwen3NextForCausalLM(Qwen3NextConfig(**SHARED, **options)).float().eval())
    tiny.with_random_decays(model).save_pretrained(HERE / name)
    sequences = tiny.sequences([5, 37, 70], seed=seed + 1, vocabulary=96)
    tiny.write_expected(HERE / name, Qwen3NextForCausalLM, sequences, greedy=sequences[1][:9])


make("all", 184, ALL)
make("some", 182, SOME)
tiny.write_gguf(HERE / "all", Qwen3NextForCausalLM, "qwen3next")
oracle.write_versions(HERE)
