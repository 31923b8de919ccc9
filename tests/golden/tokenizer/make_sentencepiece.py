#!/usr/bin/env python3
"""make_sentencepiece.py: T5's and ALBERT's shape, a Unigram model behind SentencePiece's compiled rules (Precompiled), as the tokenizers library runs it.

sentencepiece trains the models and compiles the rules from a list of its own (normalization_rule_tsv): NFKC of a few blocks, what nmt_nfkc says of
controls and blanks, and sequences. The whole nmt_nfkc takes 320 kB in base64: with the rules of sentencepiece 0.2.3 (nfkc, nfkc_cf, nmt_nfkc,
nmt_nfkc_cf) and those of XLM-R, every code point alone, before and behind letters and marks, and 1.5 million random characters gave the same text.
"""

import importlib.metadata
import io
import random
import sys
import unicodedata
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import make  # noqa: E402
import oracle  # noqa: E402
import sentencepiece  # noqa: E402
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors  # noqa: E402
from transformers.utils import sentencepiece_model_pb2_new as model_pb2  # noqa: E402

BLOCKS = [(0xA0, 0x180), (0x1C4, 0x1CD), (0x2000, 0x2070), (0x2153, 0x2180), (0x2460, 0x2480), (0x3000, 0x3001), (0xFB00, 0xFB07), (0xFF01, 0xFF61), (0x1D400, 0x1D434)]


def rules():
    found = {chr(c): unicodedata.normalize("NFKC", chr(c)) for first, last in BLOCKS for c in range(first, last)}
    found |= {c: "" for c in map(chr, [*range(1, 9), *range(14, 32), 0x7F, 0x8F, 0x9F])}
    found |= {c: " " for c in "\t\n\r\x0b\x0c\u1680\u200b\u200e\u200f\u2028\u2029\ufeff\ufffd\u2581"}
    found |= {"e\u0301": "\u00e9", "A\u030a": "\u00c5", "n\u0303": "\u00f1", "\u4e00\u3099": "one", "...": "\u2026", "<-": "\u2190"}
    return {key: value for key, value in found.items() if key != value}


def trained(scratch):
    tsv = scratch / "rules.tsv"
    tsv.write_text("".join(" ".join(f"{ord(c):X}" for c in key) + "\t" + " ".join(f"{ord(c):X}" for c in value) + "\n" for key, value in sorted(rules().items())))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(make.training_text()), model_writer=model, vocab_size=500, hard_vocab_limit=False, normalization_rule_tsv=str(tsv),
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, character_coverage=0.99, minloglevel=2)
    proto = model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    return proto


def t5(proto):
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap), normalizers.Strip(left=False, right=True),
                                                 normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in ("<pad>", "</s>", "<unk>")])
    tokenizer.add_special_tokens([AddedToken("<mask>", special=True, normalized=True, lstrip=True)])
    return tokenizer


def albert(proto):
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces], unk_id=2))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD(), normalizers.StripAccents(),
                                                 normalizers.Lowercase(), normalizers.Nmt(), normalizers.Precompiled(proto.normalizer_spec.precompiled_charsmap),
                                                 normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")])
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
    return tokenizer


SEQUENCES = ["e\u0301e\u0302 n\u0303", "A\u030a\u0301", "...", "a...b....", "<-<--", "x\r\ny\r\n\r\nz", "\u00bd\u0301 \u00bd\u0897 \u00bd\u1ae0", "\u4e00\u3099\u4e00", "\u0600\u2460 \u0600a",
             "\u2460\u200d\u2460", "\ufb01\ufe0f \ufb01\u0301\u0302", "\ufff6\u200d\u0301", "\x01a\x02", "\x01\x02", "  a", "\ta", "a \u2581 b", "a\u2581\u2581b", "\u3000a\u3000", "``quoted''", "<mask>", " a <mask>b",
             "\U0001d400\U0001d401\u0301", "\uff28\uff45\uff4c\uff4c\uff4f\u3000\uff01", "\u2153\u2154", "\u01c4\u01c5\u01c6", "\u1112\u1161\u11ab \ud55c", "\u2026\u2025", "\x00a\x00", "\u00a0\u00a0", "\ufffd\ufffd"]


def main():
    import tempfile
    rng = random.Random(11)
    keys = sorted(rules())
    texts = make.corpus(random.Random(7))[::3] + [text.encode() for text in SEQUENCES]
    pieces = keys + make.LANGUAGES + ["\u0301", "\u200d", "\u0600", " ", "  ", "a", "\r\n"]
    texts += ["".join(rng.choice(pieces)[:6] for _ in range(12)).encode() for _ in range(120)]
    with tempfile.TemporaryDirectory() as scratch:
        proto = trained(Path(scratch))
    for name, tokenizer in (("precompiled", t5(proto)), ("precompiled_accents", albert(proto))):
        folder = HERE / name
        folder.mkdir(exist_ok=True)
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
        oracle.write_rows(folder / "cases.json", make.cases(tokenizer, texts))
    oracle.write_versions(HERE / "precompiled")
    with (HERE / "precompiled" / "versions.txt").open("a") as file:
        file.write(f"sentencepiece {importlib.metadata.version('sentencepiece')}\n")
    print(len(proto.normalizer_spec.precompiled_charsmap), "bytes of rules,", len(texts), "texts")


main()
