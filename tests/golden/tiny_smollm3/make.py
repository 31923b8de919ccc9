#!/usr/bin/env python3
"""A random SmolLM3 as a Hugging Face directory and as GGUF, with logits, loss and the gradient of every parameter: its fourth layer does
not turn q and k."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import SmolLM3Config, SmolLM3ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.manual_seed(13)
config = SmolLM3Config(hidden_size=32, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2, intermediate_size=32, vocab_size=96,
                       max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.1)
tiny.with_random_vectors(SmolLM3ForCausalLM(config).float().eval()).save_pretrained(HERE)
tiny.write_expected(HERE, SmolLM3ForCausalLM, tiny.sequences([5, 37, 40], seed=31, vocabulary=96))
tiny.write_gguf(HERE, SmolLM3ForCausalLM, "smollm3")
oracle.write_versions(HERE)
