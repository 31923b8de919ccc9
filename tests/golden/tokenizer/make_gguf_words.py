#!/usr/bin/env python3
"""make_gguf_words.py: T5's and BERT's tokenizers as llama.cpp's converter writes them into a GGUF file, and as the tokenizers library runs them.

The tables are those of precompiled/ and word_piece/. t5.gguf is filled up to a model's vocabulary, and has two tokens of added_tokens.json; bert.gguf
names its tokens as converters from 2025 do (CLS as BOS).
"""

import base64
import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import make  # noqa: E402
import oracle  # noqa: E402
from gguf import GGUFWriter, TokenType  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402

ADDED = ["<extra_id_1>", "<extra_id_0>"]


def written(name, model, tokens, types):
    writer = GGUFWriter(HERE / name, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    return writer


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def t5():
    read = json.loads((HERE / "precompiled/tokenizer.json").read_text(encoding="utf-8"))
    charsmap = base64.b64decode(read["normalizer"]["normalizers"][0]["precompiled_charsmap"])
    pieces = [(piece, score) for piece, score in read["model"]["vocab"] if piece != "<mask>"]
    types = [{"<pad>": TokenType.CONTROL, "</s>": TokenType.CONTROL, "<unk>": TokenType.UNKNOWN}.get(piece, TokenType.NORMAL) for piece, _ in pieces]
    filled = pieces + [(token, -1000.0) for token in ADDED] + [(f"[PAD{i}]", -1000.0) for i in (1, 2, 3)]
    writer = written("t5.gguf", "t5", [piece for piece, _ in filled], types + [TokenType.USER_DEFINED] * 2 + [TokenType.UNUSED] * 3)
    writer.add_token_scores([score for _, score in filled])
    writer.add_add_space_prefix(True)
    writer.add_remove_extra_whitespaces(True)
    writer.add_precompiled_charsmap(charsmap)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    close(writer)
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(charsmap), normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<pad>", "</s>", "<unk>")])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    return tokenizer


def bert():
    read = json.loads((HERE / "word_piece/tokenizer.json").read_text(encoding="utf-8"))
    pieces = sorted(read["model"]["vocab"], key=read["model"]["vocab"].get)
    special = {token["content"] for token in read["added_tokens"]}
    types = [TokenType.CONTROL if piece in special else TokenType.NORMAL for piece in pieces]
    spelled = [piece if piece in special else piece[2:] if piece.startswith("##") else "▁" + piece for piece in pieces]
    writer = written("bert.gguf", "bert", spelled, types)
    for name in ("bos", "eos", "unk", "sep", "pad"):
        getattr(writer, f"add_{name}_token_id")(pieces.index({"bos": "[CLS]", "eos": "[SEP]"}.get(name, f"[{name.upper()}]")))
    close(writer)
    read["model"]["max_input_chars_per_word"] = 100
    return Tokenizer.from_str(json.dumps(read))


def main():
    texts = make.corpus(random.Random(11))
    extra = [text.encode() for text in ("<extra_id_0> and <extra_id_1>", "[PAD1][PAD2]", " lead", "  two  three   ", "a" * 90, "a" * 101, "Ünïcödé ÀÉÎ", "[CLS] [SEP] [MASK]")]
    for name, tokenizer in (("t5", t5()), ("bert", bert())):
        oracle.write_rows(HERE / f"{name}_cases.json", make.cases(tokenizer, texts[::3] + extra))


main()
