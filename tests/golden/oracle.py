"""What the golden scripts share: the SmolLM2 GGUF as the Python libraries see it, and the versions they were run with."""

import base64
import importlib.metadata
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
HERE = Path(__file__).resolve().parent
PACKAGES = "torch transformers peft trl tokenizers safetensors gguf jinja2 numpy datasets accelerate".split()


def gguf_path():
    """The first argument, or SMOLLM2_GGUF: SmolLM2-135M-Instruct.Q4_1.gguf."""
    path = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("SMOLLM2_GGUF")
    if not path:
        sys.exit(f"usage: {sys.argv[0]} SmolLM2-135M-Instruct.Q4_1.gguf")
    return Path(path)


def gguf_metadata(path):
    import gguf
    fields = gguf.GGUFReader(path).fields
    return {k: fields[k].contents() for k in fields if k.startswith("tokenizer.")}


def smollm2_tokenizer(path):
    """The tokenizers library's own parts, put together as SmolLM2's tokenizer.json does.

    transformers' own GGUF conversion is not used: it leaves out the Digits pre-tokeniser.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    meta = gguf_metadata(path)
    tokens, kinds = meta["tokenizer.ggml.tokens"], meta["tokenizer.ggml.token_type"]
    merges = [tuple(m.split(" ")) for m in meta["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
    assert tokenizer.get_vocab_size() == len(tokens)
    return tokenizer


def smollm2_transformers_tokenizer(path):
    from transformers import PreTrainedTokenizerFast
    meta = gguf_metadata(path)
    tokens = meta["tokenizer.ggml.tokens"]
    eos = tokens[meta["tokenizer.ggml.eos_token_id"]]
    return PreTrainedTokenizerFast(
        tokenizer_object=smollm2_tokenizer(path), bos_token=tokens[meta["tokenizer.ggml.bos_token_id"]], eos_token=eos,
        pad_token=eos, chat_template=meta["tokenizer.chat_template"], clean_up_tokenization_spaces=False)


def smollm2_model(path, dtype=None):
    import torch
    from transformers import AutoModelForCausalLM
    model = AutoModelForCausalLM.from_pretrained(str(path.parent), gguf_file=path.name, dtype=dtype or torch.float32)
    if hasattr(model.config, "quantization_config"):  # it is dequantised: PEFT and save_pretrained shall treat it as dense
        del model.config.quantization_config
    model.is_quantized = False
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    return model.eval()


def write_versions(folder):
    lines = [f"python {sys.version.split()[0]}"] + [f"{p} {importlib.metadata.version(p)}" for p in PACKAGES]
    (folder / "versions.txt").write_text("\n".join(lines) + "\n")


def write_json(path, value, **options):
    path.write_text(json.dumps(value, ensure_ascii=True, **options) + "\n")


def write_rows(path, rows):
    """A JSON array with one element to a line: json parsers read it whole, people and git line by line."""
    path.write_text("[\n" + ",\n".join(json.dumps(r, ensure_ascii=True, separators=(",", ":")) for r in rows) + "\n]\n")


def b64(data):
    return base64.b64encode(data).decode()
