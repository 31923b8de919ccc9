#!/usr/bin/env python3
"""Two random Qwen2s as Hugging Face directories, with logits, loss and the gradient of every parameter; one as GGUF too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
IDS = tiny.sequences([5, 37, 40], seed=17, vocabulary=96)
WINDOWS = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1, "tie_word_embeddings": True}
torch.set_num_threads(1)


def random_qwen2(seed, **options):
    torch.manual_seed(seed)
    config = Qwen2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=48, vocab_size=96,
                         max_position_embeddings=128, rope_theta=1000000.0, bos_token_id=1, eos_token_id=2, initializer_range=0.1, **options)
    return tiny.with_random_vectors(Qwen2ForCausalLM(config).float().eval())


def main():
    for name, seed, options in (("plain", 7, {}), ("windows", 8, WINDOWS)):
        random_qwen2(seed, **options).save_pretrained(HERE / name)
        tiny.write_expected(HERE / name, Qwen2ForCausalLM, IDS)
    tiny.write_gguf(HERE / "plain", Qwen2ForCausalLM, "qwen2")
    oracle.write_versions(HERE)


main()
