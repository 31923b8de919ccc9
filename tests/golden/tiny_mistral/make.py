#!/usr/bin/env python3
"""Two random Mistrals as Hugging Face directories, with logits, loss and the gradient of every parameter: one with a sliding window, one
with heads of a size of their own, which is there as GGUF too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import MistralConfig, MistralForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
IDS = tiny.sequences([5, 37, 40], seed=19, vocabulary=96)
torch.set_num_threads(1)


def random_mistral(seed, **options):
    torch.manual_seed(seed)
    config = MistralConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=96,
                           max_position_embeddings=128, bos_token_id=1, eos_token_id=2, initializer_range=0.1, **options)
    return tiny.with_random_vectors(MistralForCausalLM(config).float().eval())


def main():
    for name, seed, options in (("window", 9, {"sliding_window": 8}), ("nemo", 10, {"sliding_window": None, "head_dim": 16, "rope_theta": 1000000.0})):
        random_mistral(seed, **options).save_pretrained(HERE / name)
        tiny.write_expected(HERE / name, MistralForCausalLM, IDS)
    tiny.write_gguf(HERE / "nemo", MistralForCausalLM, "llama")
    oracle.write_versions(HERE)


main()
