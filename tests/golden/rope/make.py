#!/usr/bin/env python3
"""The inverse frequencies and the attention factor that transformers gives to configs with a scaled context, for sequences of some lengths."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
from transformers import LlamaConfig, Phi3Config  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

HERE = Path(__file__).resolve().parent
SHAPE = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, intermediate_size=64, vocab_size=32,
             pad_token_id=None, eos_token_id=None, bos_token_id=None)
FACTORS = [1.0 + 0.1 * i for i in range(16)], [1.0 + 1.5 * i for i in range(16)]
CASES = [
    (LlamaConfig, 4096, {"rope_type": "linear", "factor": 4.0}, [64]),
    (LlamaConfig, 131072, {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                           "original_max_position_embeddings": 8192}, [64]),
    (LlamaConfig, 131072, {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1000000.0}, [64]),
    (LlamaConfig, 16384, {"rope_type": "yarn", "factor": 2.5, "original_max_position_embeddings": 4096, "beta_fast": 16.0, "beta_slow": 2.0,
                          "truncate": False}, [64]),
    (LlamaConfig, 16384, {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096, "mscale": 1.0,
                          "mscale_all_dim": 0.5}, [64]),
    (LlamaConfig, 16384, {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25}, [64]),
    (LlamaConfig, 128, {"rope_type": "dynamic", "factor": 3.0}, [64, 128, 300]),
    (Phi3Config, 131072, {"rope_type": "longrope", "short_factor": FACTORS[0], "long_factor": FACTORS[1]}, [64, 4096, 4097]),
    (Phi3Config, 8192, {"rope_type": "longrope", "short_factor": FACTORS[0][:12], "long_factor": FACTORS[1][:12], "attention_factor": 1.5,
                        "partial_rotary_factor": 0.75}, [64, 8192]),
]

rows = []
for kind, context, rope, lengths in CASES:
    config = kind(**SHAPE, max_position_embeddings=context, rope_parameters={"rope_theta": 10000.0, **rope})
    for length in lengths:
        inverse, factor = ROPE_INIT_FUNCTIONS[rope["rope_type"]](config, "cpu", seq_len=length)
        given = {"model_type": kind.model_type, **SHAPE, "max_position_embeddings": context,
                 "rope_parameters": {"rope_theta": 10000.0, **rope}}
        rows.append({"config": given, "length": length, "inverse_frequencies": inverse.tolist(), "attention_factor": factor})
oracle.write_rows(HERE / "cases.json", rows)
oracle.write_versions(HERE)
