#!/usr/bin/env python3
"""A tiny random Llama as transformers and bitsandbytes quantise and save it on the CPU, with what they compute from it."""

import importlib.metadata
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import bitsandbytes.functional as bnb  # noqa: E402
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
import xxhash  # noqa: E402
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
IDS = [1, 77, 5, 42, 90, 3, 61]


def source():
    torch.manual_seed(40)
    config = LlamaConfig(hidden_size=64, num_hidden_layers=1, num_attention_heads=4, num_key_value_heads=2, head_dim=16, intermediate_size=128,
                         vocab_size=96, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True, rope_theta=10000.0,
                         bos_token_id=1, eos_token_id=2, pad_token_id=None, initializer_range=0.08)
    model = tiny.with_random_vectors(LlamaForCausalLM(config).bfloat16().eval())
    model.model.layers[0].mlp.gate_proj.weight.data[7] = 0  # a block of zeros
    return model


def quantised(name, dtype, **options):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype, **options)
    model = AutoModelForCausalLM.from_pretrained(HERE / "source", quantization_config=config, dtype=dtype, device_map="cpu").eval()
    model.save_pretrained(HERE / name)
    (HERE / name / "generation_config.json").unlink(missing_ok=True)
    # transformers' float32 model with what the codes stand for in its linears: the fused products of bitsandbytes on the CPU are approximate.
    dense = AutoModelForCausalLM.from_pretrained(HERE / "source", dtype=torch.float32).eval()
    hashes = {}
    for module_name, module in model.named_modules():
        if type(module).__name__ != "Linear4bit":
            continue
        values = bnb.dequantize_4bit(module.weight.data, module.weight.quant_state)
        assert values.dtype == dtype and tuple(values.shape) == (module.out_features, module.in_features)
        hashes[module_name + ".weight"] = xxhash.xxh64(values.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
        dense.get_submodule(module_name).weight.data = values.float()
    with torch.no_grad():
        logits = dense(input_ids=torch.tensor([IDS])).logits[0]
    return {"dequantized_xxh64": hashes, "logits": logits.tolist()}


def main():
    torch.set_num_threads(1)
    source().save_pretrained(HERE / "source")
    (HERE / "source" / "generation_config.json").unlink(missing_ok=True)
    expected = {"input_ids": IDS,
                "plain": quantised("plain", torch.float32),
                "nested": quantised("nested", torch.bfloat16, bnb_4bit_use_double_quant=True, llm_int8_skip_modules=["v_proj", "lm_head"])}
    (HERE / "expected.json").write_text(json.dumps(expected) + "\n")
    oracle.write_versions(HERE)
    with (HERE / "versions.txt").open("a") as versions:
        versions.write(f"bitsandbytes {importlib.metadata.version('bitsandbytes')}\nxxhash {xxhash.VERSION}\n")


main()
