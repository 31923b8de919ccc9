#!/usr/bin/env python3
"""A random Llama whose attention has biases, as a Hugging Face directory and as GGUF, where the biases of q and k are interleaved."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.manual_seed(11)
config = LlamaConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=48, vocab_size=96,
                     max_position_embeddings=128, bos_token_id=1, eos_token_id=2, initializer_range=0.1, attention_bias=True)
tiny.with_random_vectors(LlamaForCausalLM(config).float().eval()).save_pretrained(HERE)
tiny.write_expected(HERE, LlamaForCausalLM, tiny.sequences([5, 37, 40], seed=23, vocabulary=96))
tiny.write_gguf(HERE, LlamaForCausalLM, "llama")
oracle.write_versions(HERE)
