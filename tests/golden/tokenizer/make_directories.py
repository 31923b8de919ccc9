#!/usr/bin/env python3
"""make_directories.py: tokenizers whose tokens stand in several files, as transformers' AutoTokenizer joins them.

directories.json holds, for each case, the files that stand beside (or in place of parts of) byte_level/tokenizer.json and what
transformers answers: the ids of a text with special tokens recognised, the named ids, and what is special.
"""
import json
import tempfile
from pathlib import Path

import transformers

HERE = Path(__file__).resolve().parent
BASE = json.loads((HERE / "byte_level" / "tokenizer.json").read_text(encoding="utf-8"))
TEXT = "a <tool> b<s>c </s>  <mask> d[PAD]e <x>f</x> <|endoftext|> <image>g  <user>h"


def token(content, **flags):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, **flags}


CASES = {
    "named tokens outside the vocabulary": {"tokenizer_config.json": {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "[PAD]", "mask_token": "<mask>"}},
    "decoder": {"tokenizer_config.json": {"eos_token": "</s>", "added_tokens_decoder": {
        "9001": token("<tool>", special=True), "9000": token("</s>", special=True), "9002": token("<x>", special=False), "9003": token("<mask>", special=True, lstrip=True)}}},
    "decoder with flags of a known token": {"tokenizer_config.json": {"added_tokens_decoder": {
        "0": token("<|endoftext|>", special=True, lstrip=True, rstrip=True), "7": token("<user>", special=False, single_word=True)}}},
    "decoder hides special_tokens_map": {"tokenizer_config.json": {"added_tokens_decoder": {"9000": token("<tool>", special=True)}}, "special_tokens_map.json": {"bos_token": "<s>"}},
    "special_tokens_map": {"tokenizer_config.json": {"eos_token": "<|endoftext|>"}, "special_tokens_map.json": {"bos_token": "<s>", "eos_token": token("</s>"), "additional_special_tokens": ["<tool>", "<user>"]}},
    "special_tokens_map alone": {"special_tokens_map.json": {"bos_token": token("<s>", lstrip=True), "mask_token": token("<mask>", lstrip=True), "pad_token": "[PAD]"}},
    "added_tokens.json": {"tokenizer_config.json": {"eos_token": "</s>"}, "added_tokens.json": {"<tool>": 9100, "</s>": 9099, "<x>": 9101}},
    "added_tokens.json beside a decoder": {"tokenizer_config.json": {"added_tokens_decoder": {"9000": token("<x>", special=False)}}, "added_tokens.json": {"<tool>": 9100}},
    "additional special tokens": {"tokenizer_config.json": {"eos_token": "</s>", "additional_special_tokens": ["<tool>", "<user>"]}},
    "extra special tokens": {"tokenizer_config.json": {"extra_special_tokens": ["<tool>", "<x>"]}},
    "extra special tokens by name": {"tokenizer_config.json": {"extra_special_tokens": {"image_token": "<image>"}}},
    "a token of the model's own": {"tokenizer_config.json": {"image_token": "<image>", "bos_token": "<s>"}},
    "a token that the model's vocabulary has": {"tokenizer_config.json": {"bos_token": "a", "additional_special_tokens": ["b"]}},
    "nulls": {"tokenizer_config.json": {"bos_token": None, "eos_token": "</s>", "unk_token": None, "additional_special_tokens": None}},
    "typed tokens": {"tokenizer_config.json": {"bos_token": {"__type": "AddedToken", **token("<s>", rstrip=True)}, "mask_token": {"__type": "AddedToken", **token("<mask>", lstrip=True)}}},
    "add_bos_token is not heard": {"tokenizer_config.json": {"bos_token": "<s>", "add_bos_token": True, "add_eos_token": True, "eos_token": "</s>"}},
}


def answer(files):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "tokenizer.json").write_text(json.dumps(BASE), encoding="utf-8")
        for name, content in files.items():
            content = {"tokenizer_class": "PreTrainedTokenizerFast", **content} if name == "tokenizer_config.json" else content
            (folder / name).write_text(json.dumps(content), encoding="utf-8")
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder) if "tokenizer_config.json" in files else transformers.PreTrainedTokenizerFast.from_pretrained(folder)
        ids = tokenizer.encode(TEXT)
        special = {t.content: t.special for t in tokenizer.added_tokens_decoder.values()}
        return {"ids": ids, "bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id, "unk": tokenizer.unk_token_id,
                "special": sorted(c for c, s in special.items() if s), "without_special": tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)}


def main():
    rows = [{"name": name, "files": files, "expected": answer(files)} for name, files in CASES.items()]
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (HERE / "directories.json").write_text(f'{{"transformers": "{transformers.__version__}", "text": {json.dumps(TEXT)}, "rows": [\n{lines}\n]}}\n', encoding="utf-8")
    print(len(rows), "rows")


main()
