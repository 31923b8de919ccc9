#!/usr/bin/env python3
"""A random Seed-OSS as a Hugging Face directory and as GGUF, with logits, loss and the gradient of every parameter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import SeedOssConfig, SeedOssForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)
torch.manual_seed(170)
config = SeedOssConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=40,
                       vocab_size=96, max_position_embeddings=128, bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.1,
                       attention_dropout=0.0, residual_dropout=0.0, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
model = tiny.with_random_vectors(SeedOssForCausalLM(config).float().eval())
model.save_pretrained(HERE)
sequences = tiny.sequences([5, 37, 40], seed=171, vocabulary=96)
tiny.write_expected(HERE, SeedOssForCausalLM, sequences, greedy=sequences[1][:9])
tiny.write_gguf(HERE, SeedOssForCausalLM, "seed_oss")
oracle.write_versions(HERE)
