#!/usr/bin/env python3
"""A random Qwen2-MoE, whose experts have one beside them that all tokens go through, with experts in all layers but the first, as a Hugging
Face directory, with logits, loss and the gradient of every parameter; and one with experts in every layer, as GGUF, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen2MoeConfig, Qwen2MoeForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)


def make(name, seed, layers, **options):
    torch.manual_seed(seed)
    config = Qwen2MoeConfig(hidden_size=32, num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=1, intermediate_size=40,
                            moe_intermediate_size=12, shared_expert_intermediate_size=20, num_experts=6, num_experts_per_tok=2, vocab_size=96,
                            max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.2,
                            experts_implementation="eager", **options)
    model = tiny.with_random_vectors(Qwen2MoeForCausalLM(config).float().eval())
    model.save_pretrained(HERE / name)
    sequences = tiny.sequences([5, 37, 40], seed=seed + 10, vocabulary=96)
    tiny.write_expected(HERE / name, Qwen2MoeForCausalLM, sequences, greedy=sequences[1][:9])


make("some", 40, 3, mlp_only_layers=[0], norm_topk_prob=True)
make("all", 41, 2, norm_topk_prob=False)
tiny.write_gguf(HERE / "all", Qwen2MoeForCausalLM, "qwen2moe")
oracle.write_versions(HERE)
