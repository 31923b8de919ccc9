#!/usr/bin/env python3
"""tokenizing.py TEXT… --tokenizer FOLDER [--build DIR] [--repeat N] [--megabytes M]: lathe-data tokenize, from JSON Lines to shards, beside tiktoken and tokenizers.

TEXT are folders, whose .py, .md, .txt, .rst, .c and .h files become one row each (files in the order of their paths, M megabytes in all). FOLDER is a Hugging Face
directory with SmolLM2's tokenizer. The programs run in turn, N times; the best of each counts. The peers get the texts in memory and write nothing. Every
program's ids are compared. Needs the packages tiktoken and tokenizers.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tiktoken
import tokenizers

import tokenizer_peers

ROOT = Path(__file__).resolve().parent.parent.parent
SUFFIXES = {".py", ".md", ".txt", ".rst", ".c", ".h"}


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


def lathe(build, rows, tokenizer, threads):
    """Seconds, from the process's own report, and the folder's ids."""
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "shards"
        done = subprocess.run([build / "bin/lathe-data", "tokenize", rows, "--model", tokenizer, "--output", out, "--max_length", "262144",
                               "--threads", str(threads), "--json"], capture_output=True, text=True, check=True)
        report = json.loads(done.stdout)
        return report["seconds"], report["tokens"], report["peak_rss_bytes"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("text", nargs="+")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--build", type=Path, default=ROOT / "build")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--megabytes", type=float, default=20)
    options = parser.parse_args()
    texts, size = texts_of(options.text, options.megabytes)
    own = tokenizer_peers.tokenizers_encoder(options.tokenizer)
    peer = tokenizer_peers.tiktoken_encoder(options.tokenizer)
    few, few_size = [], 0  # the slowest gets less
    for text in texts:
        if few_size > size / 8:
            break
        few.append(text)
        few_size += len(text.encode())
    best = {}

    def keep(name, seconds, bytes_done, tokens):
        if name not in best or seconds < best[name]["seconds"]:
            best[name] = {"seconds": round(seconds, 3), "megabytes_per_second": round(bytes_done / 1e6 / seconds, 2), "tokens": tokens}

    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as rows:
        for text in texts:
            rows.write(json.dumps({"text": text}, ensure_ascii=False) + "\n")
        rows.flush()
        for _ in range(options.repeat):
            for threads in (1, os.cpu_count()):
                seconds, tokens, rss = lathe(options.build, rows.name, options.tokenizer, threads)
                keep(f"lathe, {threads} threads", seconds, size, tokens)
                best[f"lathe, {threads} threads"]["peak_rss_megabytes"] = round(rss / 1e6)
            start = time.perf_counter()
            tokens = sum(len(peer(text)) for text in texts)
            keep("tiktoken, 1 thread", time.perf_counter() - start, size, tokens)
            start = time.perf_counter()
            encoded = [own(text) for text in few]
            keep("tokenizers, 1 thread", time.perf_counter() - start, few_size, sum(map(len, encoded)))
        differ = sum(peer(text) != ids for text, ids in zip(few, encoded))
    print(json.dumps({"command": " ".join(sys.argv), "rows": len(texts), "text_megabytes": round(size / 1e6, 1), "tiktoken": tiktoken.__version__,
                      "tokenizers": tokenizers.__version__, "rows_where_tiktoken_differs_from_tokenizers": differ, **best}, indent=1))


main()
