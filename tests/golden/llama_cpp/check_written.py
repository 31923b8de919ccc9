#!/usr/bin/env python3
"""check_written.py LATHE_MODEL LLAMA_CPP [MODEL …]: holds the GGUF files that `lathe-model convert` writes of the tiny models to llama.cpp itself.

LLAMA_CPP is the unpacked source distribution of llama-cpp-python (0.3.36), its vendor/llama.cpp built into build/ with shared libraries. For each model:
- llama.cpp's own converter must write the same tensors, byte for byte (rope_freqs within the rounding of f32), and no key that differs from ours;
- llama.cpp must load our file, and its logits are compared with transformers' (expected.safetensors): it prints the largest difference.

Run by hand, before a change of nn/convert/ is landed: everything is a process of its own, because a converter keeps what it was told.
"""
import ctypes
import importlib
import json
import os
import pathlib
import pkgutil
import runpy
import shutil
import subprocess
import sys
import tempfile
import types

GOLDEN = pathlib.Path(__file__).resolve().parent.parent
# What GGUF cannot say of a model, and convert refuses or warns of: only sequences within the window are comparable.
WINDOWED = {"tiny_mistral/window", "tiny_qwen2/windows", "tiny_phi3/window"}
# Gemma 2's golden model divides by another number than the one that GGUF takes for granted.
CHANGES = {"tiny_gemma2": {"query_pre_attn_scalar": 16}}


def write_tokenizer(size, path):
    """A byte-level BPE of that many tokens with one merge, which is what a GGUF file wants at least."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = dict(zip(printable, map(chr, printable)))
    letters.update({byte: chr(256 + i) for i, byte in enumerate(b for b in range(256) if b not in letters)})
    tokens = [letter for _, letter in sorted(letters.items())][:size]
    tokens += [f"<token {i}>" for i in range(size - len(tokens))]
    tokens[-1] = tokens[0] + tokens[1]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[(tokens[0], tokens[1])]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.save(str(path))


def their_converter(source, folder, out):
    """Their script on the folder, but for the tokenizer, of which it knows the published ones by their hashes."""
    vendor = source / "vendor/llama.cpp"
    sys.path[:0] = [str(vendor / "gguf-py"), str(vendor)]
    import conversion
    from conversion import base
    for module in pkgutil.iter_modules(conversion.__path__):
        for kind in vars(importlib.import_module("conversion." + module.name)).values():
            if isinstance(kind, type) and issubclass(kind, base.TextModel):
                kind.set_vocab = lambda self: None
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(out), "--outtype", "f32"]
    runpy.run_path(str(vendor / "convert_hf_to_gguf.py"), run_name="__main__")


def their_logits(source, gguf, sequences, vocabulary):
    import numpy
    os.environ["LLAMA_CPP_LIB_PATH"] = str(source / "vendor/llama.cpp/build/bin")
    package = types.ModuleType("llama_cpp")  # without its __init__, which wants more packages
    package.__path__ = [str(source / "llama_cpp")]
    sys.modules["llama_cpp"] = package
    api = importlib.import_module("llama_cpp.llama_cpp")
    api.llama_backend_init()
    quiet = api.llama_log_callback(lambda level, text, data: None)
    api.llama_log_set(quiet, None)
    model = api.llama_model_load_from_file(str(gguf).encode(), api.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp does not load {gguf}")
    params = api.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = 128
    params.type_k = params.type_v = params.flash_attn_type = 0
    context = api.llama_init_from_model(model, params)
    found = []
    for ids in sequences:
        api.llama_memory_clear(api.llama_get_memory(context), True)
        batch = api.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        assert api.llama_decode(context, batch) == 0
        values = ctypes.cast(api.llama_get_logits(context), ctypes.POINTER(ctypes.c_float))
        found.append(numpy.ctypeslib.as_array(values, (len(ids) * vocabulary,)).reshape(len(ids), vocabulary).copy())
    return found


def differences(ours, theirs):
    import gguf
    import numpy
    a, b = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    left, right = ({t.name: t.data for t in file.tensors} for file in (a, b))
    found = sorted(left.keys() ^ right.keys())
    for name in left.keys() & right.keys():
        same = numpy.allclose(left[name], right[name], rtol=1e-5, atol=0) if name == "rope_freqs.weight" else numpy.array_equal(left[name], right[name])
        found += [] if same else [name]
    for key in b.fields:
        if key.startswith(("GGUF", "general.", "tokenizer.")):
            continue
        x, y = (file.fields[key].contents() if key in file.fields else None for file in (a, b))
        found += [] if x == y or (isinstance(y, float) and x is not None and abs(x - y) <= 1e-6 * abs(y)) else [f"{key}: {x}, theirs {y}"]
    return found


def check(program, source, name):
    from safetensors.numpy import load_file
    config = {**json.loads((GOLDEN / name / "config.json").read_text()), **CHANGES.get(name, {})}
    with tempfile.TemporaryDirectory() as temporary:
        # A name that llama.cpp takes no model for: it has special tokens for those that are called "phi3".
        folder, ours, theirs = (pathlib.Path(temporary) / part for part in ("model", "ours.gguf", "theirs.gguf"))
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(config))
        shutil.copy(GOLDEN / name / "model.safetensors", folder)
        write_tokenizer(config["vocab_size"], folder / "tokenizer.json")
        written = subprocess.run([program, "convert", folder, ours, "--dtype", "f32"], capture_output=True, text=True)
        if written.returncode:
            return print(f"{name}: refused, {written.stderr.strip()}")
        run = [sys.executable, __file__, program, source]
        subprocess.run([*run, "--their-converter", folder, theirs], check=True, capture_output=True)
        expected = json.loads((GOLDEN / name / "expected.json").read_text())
        answer = load_file(GOLDEN / name / "expected.safetensors")
        found = their_logits(pathlib.Path(source), ours, expected["input_ids"][:1] if name in WINDOWED else expected["input_ids"], config["vocab_size"])
        worst = max(float(abs(logits - answer[f"logits.{i}"]).max()) for i, logits in enumerate(found))
        print(f"{name}: logits {'of another model' if name in CHANGES else f'{worst:.1e} off'}; other than their converter's: {differences(ours, theirs) or 'nothing'}", flush=True)


def main():
    program, source, *names = sys.argv[1:]
    if names[:1] == ["--their-converter"]:
        return their_converter(pathlib.Path(source), *map(pathlib.Path, names[1:]))
    for name in names or sorted(p.parent.relative_to(GOLDEN).as_posix() for p in GOLDEN.glob("tiny_*/**/config.json")):
        if (GOLDEN / name / "expected.safetensors").exists():
            subprocess.run([sys.executable, __file__, program, source, name], check=True) if len(names) != 1 else check(program, source, name)


if __name__ == "__main__":
    main()
