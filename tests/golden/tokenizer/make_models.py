#!/usr/bin/env python3
"""The other models of words (Unigram, WordPiece), and the words that GGUF's pre-tokenisers stand for, as the tokenizers library cuts them."""

import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import make  # noqa: E402
import oracle  # noqa: E402
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers  # noqa: E402


def unigram(byte_fallback, split):
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    trained.train_from_iterator([t for t in make.training_text() if all(ord(c) < 0x250 for c in t)],
                                trainers.UnigramTrainer(vocab_size=400, special_tokens=["<unk>"], unk_token="<unk>", show_progress=False))
    import json
    vocabulary = [tuple(entry) for entry in json.loads(trained.to_str())["model"]["vocab"]]
    head = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)] + ([(f"<0x{b:02X}>", 0.0) for b in range(256)] if byte_fallback else [])
    tokenizer = Tokenizer(models.Unigram(head + [entry for entry in vocabulary if entry[0] != "<unk>"], unk_id=0, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always" if split else "first", split=split)
    tokenizer.decoder = (decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
                         if byte_fallback else decoders.Metaspace(replacement="▁", prepend_scheme="always"))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1), ("</s>", 2)])
    tokenizer.add_special_tokens(make.special(["<s>", "</s>"]))
    return tokenizer


def word_piece(lowercase):
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece(cleanup=lowercase)
    tokenizer.train_from_iterator(make.training_text(), trainers.WordPieceTrainer(vocab_size=500, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]"],
                                                                                 show_progress=False))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
SMALL, CAPITAL = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
HEAD, SLASHES = r"[^\r\n\p{L}\p{N}]?", r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
DIGITS = pre_tokenizers.Digits(individual_digits=True)


def splits(*patterns):
    return [pre_tokenizers.Split(Regex(p), behavior="isolated") for p in patterns]


NAMES = {
    "gpt-2": splits(GPT2),
    "refact": [DIGITS, *splits(GPT2)],
    "llama-bpe": splits(LLAMA3),
    "qwen2": splits(LLAMA3.replace("{1,3}", "")),
    "gpt-4o": splits(HEAD + CAPITAL + "*" + SMALL + "+" + CONTRACTIONS + "?|" + HEAD + CAPITAL + "+" + SMALL + "*" + CONTRACTIONS + r"?|\p{N}{1,3}" + SLASHES),
    "tekken": splits(HEAD + CAPITAL + "*" + SMALL + "+|" + HEAD + CAPITAL + "+" + SMALL + r"*|\p{N}" + SLASHES),
    "deepseek-coder": [*splits(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", "[一-龥ࠀ-一가-퟿]+"), DIGITS],
    "deepseek-v3": splits(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
                          r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"""),
}


def main():
    texts = make.corpus(random.Random(7))
    for name, tokenizer in (("unigram", unigram(False, True)), ("unigram_bytes", unigram(True, False)), ("word_piece", word_piece(True)),
                            ("word_piece_cased", word_piece(False))):
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
        oracle.write_rows(folder / "cases.json", make.cases(tokenizer, texts if name == "unigram_bytes" else texts[::2] + texts[-60:]))
    chosen = [t for t in (make.LANGUAGES + make.EMOJI[::3] + make.WHITESPACE[:9] + make.NUMBERS + make.CODE + make.CONTRACTIONS + make.MARKS[::2] +
                          ["HTTPServerError camelCase ÉcoleÀParis ΑβγΔ", "path/to//file /* c */ a/b\n/c", "don'T I'LL"]) if t and len(t) < 400]
    rows = []
    for name, steps in NAMES.items():
        cut = pre_tokenizers.Sequence(steps)
        rows += [{"pre": name, "words": [word for word, _ in cut.pre_tokenize_str(text)]} for text in chosen]
    oracle.write_rows(HERE / "gguf_pre_tokenizers.json", rows)


if __name__ == "__main__":
    main()
