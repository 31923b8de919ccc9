#!/usr/bin/env python3
"""A random Llama whose rotary frequencies are scaled as Llama 3.1's, as Hugging Face directory with logits, loss and the gradient
of every parameter, and as GGUF, where the scaling is rope_freqs.weight."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
torch.set_num_threads(1)


def main():
    torch.manual_seed(7)
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32}
    config = LlamaConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1, head_dim=16, intermediate_size=48,
                         vocab_size=96, max_position_embeddings=128, rms_norm_eps=1e-5, rope_parameters=rope, bos_token_id=1, eos_token_id=2,
                         initializer_range=0.3)
    tiny.with_random_vectors(LlamaForCausalLM(config).float().eval()).save_pretrained(HERE)
    tiny.write_expected(HERE, LlamaForCausalLM, tiny.sequences([5, 37, 40], seed=14, vocabulary=96))
    tiny.write_gguf(HERE, LlamaForCausalLM, "llama")
    print("frequency factors", tiny.llama3_frequency_factors(config).tolist())
    oracle.write_versions(HERE)


main()
