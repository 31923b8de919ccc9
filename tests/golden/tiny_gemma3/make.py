#!/usr/bin/env python3
"""A random Gemma 3 as a Hugging Face directory and as GGUF, with logits, loss and the gradient of every parameter: five layers with a
window, one that sees all."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Gemma3ForCausalLM, Gemma3TextConfig  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.manual_seed(12)
config = Gemma3TextConfig(hidden_size=16, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=24,
                          vocab_size=96, max_position_embeddings=128, sliding_window=8, query_pre_attn_scalar=16, bos_token_id=1, eos_token_id=2,
                          pad_token_id=None, initializer_range=0.2)  # torch gives a padding token no gradient
model = tiny.with_random_vectors(Gemma3ForCausalLM(config).float().eval())
for name, p in model.named_parameters():
    if "norm" in name:
        p.data -= 1  # stored less one
model.save_pretrained(HERE)
tiny.write_expected(HERE, Gemma3ForCausalLM, tiny.sequences([5, 37, 40], seed=29, vocabulary=96))
tiny.write_gguf(HERE, Gemma3ForCausalLM, "gemma3")
oracle.write_versions(HERE)
