#!/usr/bin/env python3
"""A random Granite with experts as a Hugging Face directory and as GGUF, with logits, loss and the gradient of every parameter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import GraniteMoeConfig, GraniteMoeForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.manual_seed(39)
config = GraniteMoeConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=12,
                          num_local_experts=6, num_experts_per_tok=3, vocab_size=96, max_position_embeddings=128, bos_token_id=1,
                          eos_token_id=2, pad_token_id=None, initializer_range=0.2, tie_word_embeddings=False, embedding_multiplier=1.5,
                          attention_multiplier=0.25, residual_multiplier=0.8, logits_scaling=3.0, experts_implementation="eager")
model = tiny.with_random_vectors(GraniteMoeForCausalLM(config).float().eval())
model.save_pretrained(HERE)
sequences = tiny.sequences([5, 37, 40], seed=49, vocabulary=96)
tiny.write_expected(HERE, GraniteMoeForCausalLM, sequences, greedy=sequences[1][:9])
tiny.write_gguf(HERE, GraniteMoeForCausalLM, "granitemoe")
oracle.write_versions(HERE)
