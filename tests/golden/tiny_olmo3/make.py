#!/usr/bin/env python3
"""A random OLMo 3 as a Hugging Face directory and as GGUF, with logits, loss and the gradient of every parameter: a window of 8 tokens in three of its
four layers, and a context that YaRN stretches in the one that sees all."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Olmo3Config, Olmo3ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.manual_seed(35)
plain, yarn = {"rope_type": "default", "rope_theta": 10000.0}, {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0,
                                                               "original_max_position_embeddings": 32}
config = Olmo3Config(hidden_size=32, num_hidden_layers=4, num_attention_heads=2, num_key_value_heads=1, intermediate_size=40, vocab_size=96,
                     max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.2, sliding_window=8,
                     rope_parameters={"sliding_attention": plain, "full_attention": yarn})
model = tiny.with_random_vectors(Olmo3ForCausalLM(config).float().eval())
model.save_pretrained(HERE)
sequences = tiny.sequences([5, 37, 40], seed=45, vocabulary=96)
tiny.write_expected(HERE, Olmo3ForCausalLM, sequences, greedy=sequences[1][:9])
tiny.write_gguf(HERE, Olmo3ForCausalLM, "olmo2")
oracle.write_versions(HERE)
