#!/usr/bin/env python3
"""A random Ministral 3 as a Hugging Face directory and as GGUF, with logits, loss and the gradient of every parameter: yarn, and queries that grow
with each sixteen tokens."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Ministral3Config, Ministral3ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)

torch.manual_seed(131)
config = Ministral3Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=48,
                          vocab_size=96, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.1,
                          rope_parameters={"rope_type": "yarn", "rope_theta": 10000.0, "factor": 8.0, "original_max_position_embeddings": 16,
                                           "beta_fast": 4.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.4})
model = tiny.with_random_vectors(Ministral3ForCausalLM(config).float().eval())
model.save_pretrained(HERE)
sequences = tiny.sequences([5, 37, 70], seed=132, vocabulary=96)
tiny.write_expected(HERE, Ministral3ForCausalLM, sequences, greedy=sequences[1][:9])
tiny.write_gguf(HERE, Ministral3ForCausalLM, "mistral3")
oracle.write_versions(HERE)
