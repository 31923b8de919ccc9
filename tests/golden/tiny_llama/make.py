#!/usr/bin/env python3
"""Two random Llamas as Hugging Face directories, with logits, loss and the gradient of every parameter."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import LlamaForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)


def main():
    for name, tied, seed in (("untied", False, 1), ("tied", True, 2)):
        tiny.random_llama(tied, seed).save_pretrained(HERE / name)
        tiny.write_expected(HERE / name, LlamaForCausalLM, tiny.sequences([5, 37, 70], seed=11))
    oracle.write_versions(HERE)


main()
