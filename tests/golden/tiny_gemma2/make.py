#!/usr/bin/env python3
"""A random Gemma 2 as a Hugging Face directory and as GGUF, with logits, loss and the gradient of every parameter: every other layer
with a window, caps low enough to bend."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Gemma2Config, Gemma2ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.manual_seed(33)
config = Gemma2Config(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=24,
                      vocab_size=96, max_position_embeddings=128, sliding_window=8, query_pre_attn_scalar=8, attn_logit_softcapping=2.0,
                      final_logit_softcapping=3.0, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.2,
                      attn_implementation="eager")  # the only one that caps
model = tiny.with_random_vectors(Gemma2ForCausalLM(config).float().eval())
for name, p in model.named_parameters():
    if "norm" in name:
        p.data -= 1  # stored less one
model.save_pretrained(HERE)
sequences = tiny.sequences([5, 37, 40], seed=43, vocabulary=96)
tiny.write_expected(HERE, Gemma2ForCausalLM, sequences, greedy=sequences[1][:9])
tiny.write_gguf(HERE, Gemma2ForCausalLM, "gemma2")
oracle.write_versions(HERE)
