#!/usr/bin/env python3
"""tokenizer_kinds.py TEXT… --vocabularies FOLDER [--repeat N] [--megabytes M]: every kind of tokenizer beside tiktoken, one thread, the same text.

TEXT are folders, whose .py, .md, .txt, .rst, .c and .h files become a row each (in the order of their paths, M megabytes in all). FOLDER has llama.cpp's ggml-vocab-NAME.gguf (models/ of its source). Both sides get the texts in memory, in
turn, N times; the best of each counts. tiktoken has Llama 3's vocabulary and pattern, its own way to tokenise; its ids are compared with Lathe's.
Prints a table in Markdown. Needs the packages tiktoken, tokenizers and gguf.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
import base64

import gguf
import tiktoken
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

import tokenizer_peers
from environment import TREE

SUFFIXES = {".py", ".md", ".txt", ".rst", ".c", ".h"}
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


def texts_of(folders, megabytes):
    texts, size = [], 0
    for path in sorted(p for folder in folders for p in Path(folder).rglob("*") if p.suffix in SUFFIXES and p.is_file()):
        try:
            text = path.read_text(encoding="utf-8")
        except (UnicodeDecodeError, OSError):
            continue
        if "<|" in text or not text:  # control tokens are text to one and tokens to another
            continue
        texts.append(text)
        size += len(text.encode())
        if size > megabytes * 1e6:
            break
    return texts, size


def fields_of(path):
    fields = gguf.GGUFReader(path).fields
    return {key.removeprefix("tokenizer.ggml."): field.contents() for key, field in fields.items() if key.startswith("tokenizer.ggml.")}


def tiktoken_llama3(path):
    meta, byte_of = fields_of(path), tokenizer_peers.bytes_of_characters()
    ranks, special = {}, {}
    for rank, (token, kind) in enumerate(zip(meta["tokens"], meta["token_type"])):
        if kind == 3:
            special[token] = rank
        else:
            ranks[bytes(byte_of[c] for c in token)] = rank
    return tiktoken.Encoding("llama3", pat_str=LLAMA3, mergeable_ranks=ranks, special_tokens=special)


def unigram(path, split):
    meta = fields_of(path)
    tokenizer = Tokenizer(models.Unigram(list(zip(meta["tokens"], map(float, meta["scores"]))), unk_id=meta["unknown_token_id"]))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Precompiled(bytes(meta["precompiled_charsmap"])), normalizers.Strip(left=False, right=True),
                                                 normalizers.Replace(Regex(" {2,}"), "▁")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=split)
    return tokenizer


def word_piece(path):
    tokens = fields_of(path)["tokens"]  # llama.cpp marks beginnings, with ▁, where BERT marks what goes on, with ##
    words = {token[1:] if token.startswith("▁") else token if token.startswith("[") else "##" + token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    return tokenizer


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="+")
    parser.add_argument("--vocabularies", type=Path, required=True)
    parser.add_argument("--build", type=Path, default=TREE / "build")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=8)
    options = parser.parse_args()
    texts, size = texts_of(options.text, options.megabytes)
    vocabulary = {name: options.vocabularies / f"ggml-vocab-{name}.gguf" for name in ("llama-bpe", "gpt-2", "qwen2", "llama-spm", "phi-3", "nomic-bert-moe", "bert-bge")}
    peer = tiktoken_llama3(vocabulary["llama-bpe"])
    best, tokens = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        made = {"Unigram, words (XLM-R's)": unigram(vocabulary["nomic-bert-moe"], True), "Unigram, whole texts": unigram(vocabulary["nomic-bert-moe"], False),
                "WordPiece (BERT's)": word_piece(vocabulary["bert-bge"])}
        kinds = {"byte-level BPE (Llama 3's)": vocabulary["llama-bpe"], "byte-level BPE (GPT-2's)": vocabulary["gpt-2"], "byte-level BPE (Qwen 2's)": vocabulary["qwen2"],
                 "SentencePiece BPE (Llama 2's)": vocabulary["llama-spm"], "SentencePiece BPE (Phi-3's)": vocabulary["phi-3"]}
        for name, tokenizer in made.items():
            kinds[name] = scratch / base64.urlsafe_b64encode(name.encode()).decode()
            kinds[name].mkdir()
            tokenizer.save(str(kinds[name] / "tokenizer.json"))
        rows = scratch / "rows.jsonl"
        rows.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")
        for _ in range(options.repeat):
            start = time.perf_counter()
            ids = sum(len(peer.encode_ordinary(text)) for text in texts)
            best["tiktoken"] = min(best.get("tiktoken", 1e9), time.perf_counter() - start)
            tokens["tiktoken"] = ids
            for name, path in kinds.items():
                done = subprocess.run([options.build / "bin/lathe-bench", "tokenize", path, rows, "--repeat", "2", "--json"], capture_output=True, text=True, check=True)
                report = json.loads(done.stdout)
                best[name], tokens[name] = min(best.get(name, 1e9), report["seconds"]), report["tokens"]
        same = "the same number" if tokens["tiktoken"] == tokens["byte-level BPE (Llama 3's)"] else "another number"
        print(f"{len(texts)} texts, {size / 1e6:.1f} MB, one thread; tiktoken {tiktoken.__version__} with Llama 3's vocabulary ({same} of tokens)\n")
        print("| kind | tokens | MB/s | × tiktoken |\n|---|---:|---:|---:|")
        for name, seconds in best.items():
            print(f"| {name} | {tokens[name]} | {size / 1e6 / seconds:.1f} | {best['tiktoken'] / seconds:.2f} |")


if __name__ == "__main__":
    main()
