#!/usr/bin/env python3
"""Random LFM2s as Hugging Face directories, with logits, loss and the gradient of every parameter. plain: as the models are, whose feed-forward blocks
are less wide than their number says, and as GGUF. bias: biases in its convolutions and the linears around them, four taps, an embedding that is not
tied."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import Lfm2Config, Lfm2ForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
SHARED = dict(hidden_size=32, num_attention_heads=2, num_key_value_heads=1, vocab_size=96, max_position_embeddings=128, bos_token_id=1, eos_token_id=2,
              pad_token_id=None, initializer_range=0.2)
CONFIGS = {"plain": dict(layer_types=["conv", "full_attention", "conv", "conv"], num_hidden_layers=4, intermediate_size=60, block_multiple_of=16),
           "bias": dict(full_attn_idxs=[1], num_hidden_layers=3, intermediate_size=40, block_auto_adjust_ff_dim=False, conv_bias=True, conv_L_cache=4,
                        tie_word_embeddings=False)}
torch.set_num_threads(1)

for number, (name, own) in enumerate(CONFIGS.items()):
    torch.manual_seed(70 + number)
    model = tiny.with_random_vectors(Lfm2ForCausalLM(Lfm2Config(**SHARED, **own)).float().eval())
    model.save_pretrained(HERE / name)
    sequences = tiny.sequences([5, 37, 40], seed=80 + number, vocabulary=96)
    tiny.write_expected(HERE / name, Lfm2ForCausalLM, sequences, greedy=sequences[1][:9])
tiny.write_gguf(HERE / "plain", Lfm2ForCausalLM, "lfm2")
oracle.write_versions(HERE)
