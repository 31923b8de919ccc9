#!/usr/bin/env python3
"""Arrow files as datasets and pyarrow write them, and their rows as JSON: None is left out of structs and rows, as
TRL's remove_none_values does."""
import datetime, json, math, pathlib, shutil

import datasets
import pyarrow as pa
import pyarrow.parquet

here = pathlib.Path(__file__).parent


def clean(value):
    if isinstance(value, dict):
        return {key: clean(v) for key, v in value.items() if v is not None}
    if isinstance(value, list):
        if value and all(isinstance(v, tuple) for v in value):  # a map
            return {key: clean(v) for key, v in value}
        return [clean(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_rows(name, rows):
    with open(here / name, "w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(clean(row), ensure_ascii=False) + "\n")


def saved():
    rows = [{"messages": [{"role": "user", "content": f"Frage {i}: “ja”?\n"},
                          {"role": "assistant", "content": "é" * (i % 4), "name": None if i % 3 else f"n{i}"}],
             "score": None if i % 5 == 0 else i / 3, "id": i, "good": i % 2 == 0,
             "tags": [f"t{j}" for j in range(i % 3)]}
            for i in range(25)]
    dataset = datasets.Dataset.from_list(rows)
    shutil.rmtree(here / "saved", ignore_errors=True)
    dataset.save_to_disk(here / "saved", num_shards=2)
    write_rows("saved.jsonl", dataset.to_list())


def table():
    texts = ["", "short", "exactly 12 b", "longer than twelve bytes, so that it lies elsewhere", None,
             "\"\\\t\x01 ß 漢字 👩‍👩‍👧"] * 4
    count = len(texts)
    some = lambda values: [None if i % 7 == 3 else v for i, v in enumerate(values)]
    columns = {
        "text": pa.array(texts, pa.string()),
        "large": pa.array(texts, pa.large_string()),
        "view": pa.array(texts, pa.string_view()),
        "dictionary": pa.array(texts, pa.string()).dictionary_encode(),
        "none": pa.nulls(count),
        "truth": pa.array(some([i % 3 == 0 for i in range(count)]), pa.bool_()),
        "half": pa.array(some([0.5, -2.0, 65504.0, 6e-8, float("inf"), 0.1] * 4), pa.float16()),
        "float": pa.array(some([0.1, -1e30, 1e-40, 3.0, float("nan"), 1 / 3] * 4), pa.float32()),
        "double": pa.array(some([0.1, -1e300, 5e-324, 3.0, float("-inf"), 1 / 3] * 4), pa.float64()),
        "fixed": pa.array(some([[i, i + 1] for i in range(count)]), pa.list_(pa.int16(), 2)),
        "lists": pa.array(some([[[1] * (i % 3), None, []] for i in range(count)]), pa.list_(pa.large_list(pa.int32()))),
        "map": pa.array(some([[("a", i), ("b", None)] for i in range(count)]), pa.map_(pa.string(), pa.int64())),
        "struct": pa.array(some([{"x": None if i % 2 else i, "y": {"z": texts[i]}} for i in range(count)])),
    }
    for bits in (8, 16, 32, 64):
        top = 2 ** (bits - 1)
        columns[f"i{bits}"] = pa.array(some([0, -1, top - 1, -top, 7, 8] * 4), f"int{bits}")
        columns[f"u{bits}"] = pa.array(some([0, 1, 2 * top - 1, top, 7, 8] * 4), f"uint{bits}")
    return pa.table(columns)


def types():
    whole = table()
    write_rows("types.jsonl", whole.to_pylist() + whole.slice(5, 9).to_pylist())
    batches = whole.to_batches(max_chunksize=10) + whole.slice(5, 9).to_batches()
    with pa.ipc.new_stream(here / "types_stream.arrow", whole.schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
    options = pa.ipc.IpcWriteOptions(compression="zstd", unify_dictionaries=True)
    with pa.ipc.new_file(here / "types_file_zstd.arrow", whole.schema, options=options) as writer:
        for batch in batches:
            writer.write_batch(batch)
    small = pa.table({"text": ["a" * 200] * 20})
    lz4 = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(here / "lz4.arrow", small.schema, options=lz4) as writer:
        writer.write_table(small)
    pa.parquet.write_table(pa.table({"text": ["a"]}), here / "small.parquet")
    image = pa.schema([("image", pa.struct([("bytes", pa.binary())]))])
    with pa.ipc.new_stream(here / "binary.arrow", image) as writer:
        writer.write_table(pa.table({"image": [{"bytes": b"1"}]}))
    times = pa.table({"day": pa.array([datetime.date(2026, 1, 2)]),
                      "at": pa.array([datetime.datetime(2026, 1, 2, 3)], pa.timestamp("ms"))})
    with pa.ipc.new_stream(here / "times.arrow", times.schema) as writer:
        writer.write_table(times)


saved()
types()
