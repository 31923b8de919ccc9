#!/usr/bin/env python3
"""A random Qwen3.5-MoE, text, as a Hugging Face directory, with logits, loss and the gradient of every parameter, and as GGUF: text, whose experts
transformers writes each apart. tied: one with as many value heads as key heads and a tied embedding, its experts in two tensors a layer, as Qwen's own
directories have them."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen3_5MoeForCausalLM, Qwen3_5MoeTextConfig  # noqa: E402

HERE = Path(__file__).resolve().parent
SHARED = dict(hidden_size=32, num_attention_heads=2, num_key_value_heads=1, head_dim=16, vocab_size=96, max_position_embeddings=128, bos_token_id=1,
              eos_token_id=2, pad_token_id=None, initializer_range=0.1, linear_key_head_dim=8, linear_num_key_heads=2, num_experts=6,
              num_experts_per_tok=2, moe_intermediate_size=12, shared_expert_intermediate_size=20, experts_implementation="eager",
              rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 0.25})
TEXT = dict(num_hidden_layers=4, linear_num_value_heads=4, linear_value_head_dim=16, tie_word_embeddings=False)
TIED = dict(num_hidden_layers=2, layer_types=["linear_attention", "full_attention"], linear_num_value_heads=2, linear_value_head_dim=8,
            linear_conv_kernel_dim=3, tie_word_embeddings=True)
torch.set_num_threads(1)


def make(name, seed, options, **saving):
    torch.manual_seed(seed)
    model = tiny.with_random_vectors(Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**SHARED, **options)).float().eval())
    tiny.with_random_decays(model).save_pretrained(HERE / name, **saving)
    sequences = tiny.sequences([5, 37, 70], seed=seed + 1, vocabulary=96)
    tiny.write_expected(HERE / name, Qwen3_5MoeForCausalLM, sequences, greedy=sequences[1][:9])


make("text", 140, TEXT)
make("tied", 160, TIED, save_original_format=False)
tiny.write_gguf(HERE / "text", Qwen3_5MoeForCausalLM, "qwen35moe")
oracle.write_versions(HERE)
