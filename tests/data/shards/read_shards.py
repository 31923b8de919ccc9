#!/usr/bin/env python3
"""Reads a folder of shards as docs/data.md describes it and prints each row as JSON: its sequences, and its text where
it has one. The standard library alone, with the system's libzstd for compressed shards."""
import array, ctypes, json, pathlib, struct, sys


def body_of(data, end, packed_at, block=65536):  # the file as it would be without compression
    if not packed_at:
        return data
    zstd, body, begin, sizes = ctypes.CDLL("libzstd.so.1"), bytearray(data[:128]), 128, range(128, end, block)
    for stored, at in zip(struct.unpack_from(f"<{len(sizes)}Q", data, packed_at), sizes):
        size, frame = min(block, end - at), data[begin:stored]
        if len(frame) < size:
            packed, frame = frame, ctypes.create_string_buffer(size)
            zstd.ZSTD_decompress(frame, ctypes.c_size_t(size), packed, ctypes.c_size_t(len(packed)))
        body += bytes(frame)
        begin = stored
    return bytes(body)


def rows(folder):
    for entry in json.loads((folder / "manifest.json").read_text())["files"]:
        data = (folder / entry["name"]).read_bytes()
        magic, version, id_bytes, values, _ = struct.unpack_from("<8s4I", data)
        tokens, sequences, count, ids_at, labels_at = struct.unpack_from("<5Q", data, 24)
        sequence_at, row_at, end, size, text_at, packed_at = struct.unpack_from("<6Q", data, 64)
        assert magic == b"LATHESHD" and version in (1, 2) and size == len(data)
        data = body_of(data, end, packed_at)
        part = lambda kind, at, length: array.array(kind, data[at:at + length * array.array(kind).itemsize])
        ids = part("H" if id_bytes == 2 else "I", ids_at, tokens)
        begin, row_begin = part("I", sequence_at, sequences + 1), part("I", row_at, count + 1)
        learnt = lambda t: data[labels_at + t // 8] >> t % 8 & 1
        labels = part("i", labels_at, tokens) if values else [ids[t] if learnt(t) else -100 for t in range(tokens)]
        text, first = part("Q", text_at, count + 1), text_at + (count + 1) * 8
        for row in range(count):
            bounds = begin[row_begin[row]:row_begin[row + 1] + 1]
            found = [[list(ids[a:b]), list(labels[a:b])] for a, b in zip(bounds, bounds[1:])]
            yield found + [data[first + text[row]:first + text[row + 1]].decode()] if text_at else found


for row in rows(pathlib.Path(sys.argv[1])):
    print(json.dumps(row, separators=(",", ":")))
