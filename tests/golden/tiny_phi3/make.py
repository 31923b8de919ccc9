#!/usr/bin/env python3
"""A random Phi-3 with longrope, of whose heads three quarters turn (as in Phi-4-mini), and one with a window: as Hugging Face
directories and as GGUF, with logits, loss and the gradient of every parameter. All sequences but the first are longer than the original
context of the first model, and it is too where longrope is asked for the longest: short and long factors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Phi3Config, Phi3ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)


def make(name, seed, sequences, **options):
    torch.manual_seed(seed)
    config = Phi3Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=40, vocab_size=96,
                        bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.2, **options)
    model = tiny.with_random_vectors(Phi3ForCausalLM(config).float().eval())
    model.save_pretrained(HERE / name)
    tiny.write_expected(HERE / name, Phi3ForCausalLM, sequences, greedy=sequences[1][:9])
    tiny.write_gguf(HERE / name, Phi3ForCausalLM, "phi3")


# From its ninth token on a sequence has the long factors, from the first in the tests: all sequences are longer.
make("longrope", 31, tiny.sequences([9, 37, 40], seed=41, vocabulary=96), max_position_embeddings=128, original_max_position_embeddings=8,
     rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, "short_factor": [1.0, 1.1, 1.2],
                      "long_factor": [1.5, 2.5, 6.0]})
make("window", 32, tiny.sequences([5, 37, 40], seed=42, vocabulary=96), max_position_embeddings=128, original_max_position_embeddings=128,
     sliding_window=8)
oracle.write_versions(HERE)
