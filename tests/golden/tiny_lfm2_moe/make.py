#!/usr/bin/env python3
"""Random LFM2-MoEs as Hugging Face directories, with logits, loss and the gradient of every parameter. biased: a bias turns the choice of experts, whose
weights add up to 1, and as GGUF. plain: no bias, weights that are multiplied and not divided, two layers without experts, biases of convolutions, an
embedding that is not tied."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Lfm2MoeConfig, Lfm2MoeForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
SHARED = dict(hidden_size=32, intermediate_size=48, moe_intermediate_size=12, num_attention_heads=2, num_key_value_heads=1, num_experts=6,
              num_experts_per_tok=2, vocab_size=96, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None,
              initializer_range=0.2, experts_implementation="eager", rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
BIASED = dict(num_hidden_layers=4, num_dense_layers=1, layer_types=["conv", "full_attention", "conv", "full_attention"], tie_word_embeddings=True)
PLAIN = dict(num_hidden_layers=3, num_dense_layers=2, layer_types=["conv", "full_attention", "conv"], use_expert_bias=False, norm_topk_prob=False,
             routed_scaling_factor=1.5, conv_bias=True, conv_L_cache=4, tie_word_embeddings=False)
torch.set_num_threads(1)


def make(name, seed, options):
    torch.manual_seed(seed)
    model = tiny.with_random_vectors(Lfm2MoeForCausalLM(Lfm2MoeConfig(**SHARED, **options)).float().eval())
    for key, buffer in model.named_buffers():
        if key.endswith(".expert_bias"):
            buffer.copy_(0.3 * torch.randn_like(buffer))
    model.save_pretrained(HERE / name)
    sequences = tiny.sequences([5, 37, 40], seed=seed + 1, vocabulary=96)
    tiny.write_expected(HERE / name, Lfm2MoeForCausalLM, sequences, greedy=sequences[1][:9])


make("biased", 200, BIASED)
make("plain", 202, PLAIN)
tiny.write_gguf(HERE / "biased", Lfm2MoeForCausalLM, "lfm2moe")
oracle.write_versions(HERE)
