#!/usr/bin/env python3
"""Reads a folder of shards as docs/data.md describes it, with the standard library alone, and prints each row as JSON."""
import array, json, pathlib, struct, sys


def rows(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    for entry in manifest["files"]:
        data = (folder / entry["name"]).read_bytes()
        magic, version, id_bytes, values, _ = struct.unpack_from("<8s4I", data)
        tokens, sequences, count, ids_at, labels_at, sequence_at, row_at, _, size = struct.unpack_from("<9Q", data, 24)
        assert magic == b"LATHESHD" and version == 1 and size == len(data)

        def part(kind, at, length):
            return array.array(kind, data[at:at + length * array.array(kind).itemsize])

        ids = part("H" if id_bytes == 2 else "I", ids_at, tokens)
        sequence_begin, row_begin = part("I", sequence_at, sequences + 1), part("I", row_at, count + 1)
        if values:
            labels = part("i", labels_at, tokens)
        else:
            labels = [ids[t] if data[labels_at + t // 8] >> t % 8 & 1 else -100 for t in range(tokens)]
        for row in range(count):
            bounds = sequence_begin[row_begin[row]:row_begin[row + 1] + 1]
            yield [[list(ids[a:b]), list(labels[a:b])] for a, b in zip(bounds, bounds[1:])]


for row in rows(pathlib.Path(sys.argv[1])):
    print(json.dumps(row, separators=(",", ":")))
