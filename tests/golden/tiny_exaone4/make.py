#!/usr/bin/env python3
"""Random EXAONE 4s as Hugging Face directories and as GGUF, with logits, loss and the gradient of every parameter. windows: three of four layers with
a window of 8 tokens, the fourth without rotary embedding, as the 32B. full: all layers turn and see all, with Llama 3's scaling, as the 1.2B."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Exaone4Config, Exaone4ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
SHARED = dict(hidden_size=32, num_attention_heads=2, num_key_value_heads=1, intermediate_size=40, vocab_size=96, max_position_embeddings=128,
              bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.2)
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 32}
MODELS = {"windows": dict(num_hidden_layers=4, sliding_window=8, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}),
          "full": dict(num_hidden_layers=2, sliding_window=None, layer_types=["full_attention"] * 2, tie_word_embeddings=True, rope_parameters=LLAMA3)}
torch.set_num_threads(1)
for number, (name, options) in enumerate(MODELS.items()):
    torch.manual_seed(160 + number)
    model = tiny.with_random_vectors(Exaone4ForCausalLM(Exaone4Config(**SHARED, **options)).float().eval())
    model.save_pretrained(HERE / name)
    sequences = tiny.sequences([5, 37, 40], seed=165, vocabulary=96)
    tiny.write_expected(HERE / name, Exaone4ForCausalLM, sequences, greedy=sequences[1][:9])
    tiny.write_gguf(HERE / name, Exaone4ForCausalLM, "exaone4")
oracle.write_versions(HERE)
