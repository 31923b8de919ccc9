#!/usr/bin/env python3
"""A random Qwen3 with experts in all layers but the first, as a Hugging Face directory, with logits, loss and the gradient of every
parameter; and one with experts in every layer whose weights are shared out, as GGUF, too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)


def make(name, seed, layers, **options):
    torch.manual_seed(seed)
    config = Qwen3MoeConfig(hidden_size=24, num_hidden_layers=layers, num_attention_heads=2, num_key_value_heads=1, head_dim=16,
                            intermediate_size=40, moe_intermediate_size=12, num_experts=6, num_experts_per_tok=2, vocab_size=96,
                            max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.2,
                            experts_implementation="eager", **options)
    model = tiny.with_random_vectors(Qwen3MoeForCausalLM(config).float().eval())
    model.save_pretrained(HERE / name)
    sequences = tiny.sequences([5, 37, 40], seed=seed + 10, vocabulary=96)
    tiny.write_expected(HERE / name, Qwen3MoeForCausalLM, sequences, greedy=sequences[1][:9])


make("some", 36, 3, mlp_only_layers=[0], norm_topk_prob=False)
make("all", 37, 2, norm_topk_prob=True)
tiny.write_gguf(HERE / "all", Qwen3MoeForCausalLM, "qwen3moe")
oracle.write_versions(HERE)
