"""The random Llama of the golden files; tiny_llama/make.py saves it, the others load what it saved."""

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import oracle

FOLDER = oracle.HERE / "tiny_llama"


def random_llama(tied, seed):
    torch.manual_seed(seed)
    config = LlamaConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=160,
                         vocab_size=320, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=tied, rope_theta=10000.0,
                         bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.08)
    model = LlamaForCausalLM(config).float().eval()
    for name, p in model.named_parameters():  # norms that are not all ones, so that a wrong one shows
        if "norm" in name:
            p.data = 1 + 0.2 * torch.randn_like(p)
    return model


def load(name="untied"):
    from transformers import AutoModelForCausalLM
    return AutoModelForCausalLM.from_pretrained(FOLDER / name, dtype=torch.float32).eval()


def sequences(lengths, seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 320, (n,), generator=generator).tolist() for n in lengths]
