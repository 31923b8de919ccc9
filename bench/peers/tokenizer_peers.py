#!/usr/bin/env python3
"""The peers of `lathe-data tokenize`: tiktoken and Hugging Face's tokenizers on rows {"text"} of JSON, reading them included.

    tokenizer_peers.py tiktoken|tokenizers DIRECTORY TEXT.jsonl [--threads N]

DIRECTORY has a tokenizer.json of byte-level BPE that splits digits (SmolLM2's). tiktoken gets the same vocabulary as ranks, and one pattern that
splits as the two pre-tokenisers do one after the other. Prints JSON: ids, bytes of text, seconds. Starting is not counted on any side.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path

# GPT-2's, with single digits apart; white space before a digit stays whole, as it ends the piece before it.
PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?=\p{N})|\s+(?!\S)|\s+"


def write_text(path, folder, most_bytes, piece=20_000):
    """Code and prose of the virtual environment's packages, in pieces of up to `piece` characters."""
    if path.exists():
        return
    total = 0
    with path.open("w", encoding="utf-8") as file:
        for source in sorted(found for kind in ("*.py", "*.md", "*.rst", "*.txt", "METADATA") for found in folder.rglob(kind)):
            text = source.read_text(encoding="utf-8", errors="ignore")
            for start in range(0, len(text), piece):
                file.write(json.dumps({"text": text[start:start + piece]}) + "\n")
                total += len(text[start:start + piece].encode())
                if total >= most_bytes:
                    return
    sys.exit(f"tokenizer_peers.py: {folder} holds only {total} bytes of text")


def bytes_of_characters():
    """GPT-2's alphabet: which byte a character of the vocabulary stands for."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


def tiktoken_encoder(directory, threads):
    import tiktoken
    document = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    byte_of, added = bytes_of_characters(), {token["content"]: token["id"] for token in document["added_tokens"]}
    ranks = {bytes(byte_of[c] for c in token): rank for token, rank in document["model"]["vocab"].items() if token not in added}
    encoding = tiktoken.Encoding("model", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=added)
    if threads == 1:  # its batches start threads of their own for each call
        return lambda texts: [encoding.encode(text, allowed_special="all") for text in texts]
    return lambda texts: encoding.encode_batch(texts, num_threads=threads, allowed_special="all")


def tokenizers_encoder(directory, threads):
    os.environ.update(TOKENIZERS_PARALLELISM="true" if threads > 1 else "false", RAYON_NUM_THREADS=str(threads))
    from tokenizers import Tokenizer
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


def check_counts(name, ours, theirs):
    if theirs["ids"] + theirs["rows"] != ours["tokens"]:  # a row's end token is Lathe's alone
        sys.exit(f"{name} makes {theirs['ids']} ids of {theirs['rows']} rows where Lathe makes {ours['tokens']}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=("tiktoken", "tokenizers"))
    parser.add_argument("directory", type=Path)
    parser.add_argument("text", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    encoder = {"tiktoken": tiktoken_encoder, "tokenizers": tokenizers_encoder}[options.library]
    encode = encoder(options.directory, options.threads)
    encode(["The first call makes what is made once. 123"])
    start = time.perf_counter()
    with options.text.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    ids = sum(map(len, encode(texts)))
    seconds = time.perf_counter() - start
    print(json.dumps({"library": options.library, "ids": ids, "rows": len(texts), "seconds": seconds,
                      "text_bytes": sum(len(text.encode()) for text in texts)}))


if __name__ == "__main__":
    main()
