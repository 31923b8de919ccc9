"""The comparisons of bench/peers/run. Each runs one round, Lathe and its peers in turn, and says what came out as rows of the table."""

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Callable

import dpo_vs_trl
import grpo_vs_trl
import llama_cpp
import tokenizer_peers
import train_vs_peft
from environment import TREE, output_of

HERE = Path(__file__).resolve().parent
LLAMA_TYPES = ("Q4_1", "Q4_0", "Q4_K_M", "Q8_0", "Q6_K", "Q5_K_M", "Q3_K_M", "IQ4_XS", "IQ4_NL", "BF16")
TRAINING = ("torch", "transformers", "peft")
WITH_BF16 = ("avx512_bf16", "amx")  # the sets that multiply bf16


@dataclass
class Comparison:
    name: str
    title: str
    peer: str
    packages: tuple  # of the virtual environment
    command: str  # Lathe's side, as a reader would type it
    round: Callable  # of an Environment: rows for results.Results.add
    llama_cpp: bool = False
    isas: tuple = ("avx2", "avx512", *WITH_BF16)  # where it says something: bf16 is emulated without bf16 products


def row(work, unit, lathe, peer, **more):
    return {"work": work, "unit": unit, "lathe": lathe, "peer": peer, **more}


# Inference.

def llama_answers(kind):
    def one_round(env):
        model, programs = env.model_of_type(kind), env.llama_cpp()
        theirs = llama_cpp.peer(programs / "llama-bench", model, env.threads)
        ours = llama_cpp.lathe(env.lathe("lathe-bench"), model, env.threads)
        return [row(f"{kind}, answer of 128", "tokens/s", ours["tg128"], theirs["tg128"], limit=ours["reading_limit"]),
                row(f"{kind}, prompt of 512", "tokens/s", ours["pp512"], theirs["pp512"])]
    return one_round


def llama_streams(kind, streams=(8, 32), tokens=64):
    def one_round(env):
        model, rows = env.model_of_type(kind), []
        for count in streams:
            lines = output_of(env.llama_cpp() / "llama-batched-bench", "-m", model, "-t", env.threads, "-c", count * (tokens + 2), "-npp", 1, "-ntg", tokens,
                              "-npl", count, "--output-format", "jsonl").splitlines()
            theirs = json.loads([line for line in lines if line.startswith("{")][-1])["speed_tg"]
            ours = json.loads(output_of(env.lathe("lathe-bench"), "model", model, "--threads", env.threads, "-p", 0, "-n", tokens, "-r", 1,
                                        "--sequences", count, "--json"))[f"tg{tokens}"]
            rows.append(row(f"{kind}, {count} answers of {tokens} at once", "tokens/s", ours, theirs))
        return rows
    return one_round


def seconds_and_peak(*command):
    """Wall seconds and the most bytes resident of one process."""
    start = time.perf_counter()
    child = subprocess.Popen([str(part) for part in command], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    seconds = time.perf_counter() - start
    if status != 0:
        sys.exit(f"{' '.join(map(str, command))} failed")
    return seconds, usage.ru_maxrss * 1024


def one_token(kind):
    def one_round(env):
        model = env.model_of_type(kind)
        lathe = ("lathe-model", "generate", model, "--threads", env.threads, "--raw", "--quiet", "--prompt", "Hello", "--max_tokens", 1)
        peer = (env.llama_cpp() / "llama-completion", "-m", model, "-t", env.threads, "-no-cnv", "-p", "Hello", "-n", 1)
        # The first pair reads the file.
        pairs = [(seconds_and_peak(env.lathe(lathe[0]), *lathe[1:]), seconds_and_peak(*peer)) for _ in range(4)][1:]
        (ours, our_peak), (theirs, their_peak) = (min(side) for side in zip(*pairs))
        return [row(f"{kind}, one word in, one token out: whole process", "ms", 1e3 * ours, 1e3 * theirs, less_is_better=True),
                row(f"{kind}, one word in, one token out: peak memory", "MB", our_peak / 1e6, their_peak / 1e6, less_is_better=True)]
    return one_round


# Training. Steps are few, so that a round is short: rounds make the figure.

def training_options(env, dtype, **more):
    options = dict(lathe=env.lathe("lathe-train"), model=env.model_directory(dtype), peer_model=env.model_directory(dtype), device="cpu", dtype=dtype,
                   threads=env.threads, batch=8, steps=5, warmup=1, layout="padded", load_in_4bit=False)
    return SimpleNamespace(**{**options, **more})


def step_flops(config, labelled, rank=16):
    """Of a token in a LoRA step: each frozen linear forward and back to its input, the head where a token is labelled, A and B with their gradients.
    Attention is left out, so that the limit is rather too high."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    linears = [(hidden, hidden), (hidden, keys), (hidden, keys), (hidden, hidden), (hidden, inner), (hidden, inner), (inner, hidden)]
    layer = sum(4 * ours * theirs + 6 * rank * (ours + theirs) for ours, theirs in linears)
    return config["num_hidden_layers"] * layer + 4 * labelled * hidden * config["vocab_size"]


def step_limit(env, options):
    """Tokens a second at the measured peak of arithmetic."""
    peak = json.loads(output_of(env.lathe("lathe-bench"), "matmul", "--sizes", 64, "--dtype", options.dtype, "--threads", env.threads, "--json"))
    labels = [label for line in Path(options.rows).read_text().splitlines() for label in json.loads(line)["labels"]]
    config = json.loads((options.model / "config.json").read_text())
    return 1e9 * peak["peak_gflops"] / step_flops(config, sum(label != -100 for label in labels) / len(labels))


def trained(title, side_ours, side_theirs, options, limit=None):
    (ours, our_peak), (theirs, their_peak) = side_ours(options), side_theirs(options)
    return [row(title, "tokens/s", ours, theirs, limit=limit), row(f"{title}: peak memory", "MB", our_peak / 1e6, their_peak / 1e6, less_is_better=True)]


def extract_rows(env):
    """examples/extract as the token ids of the model's chat template, what the user wrote not trained."""
    path = env.cache / "extract_rows.jsonl"
    if not path.exists():
        from transformers import AutoTokenizer
        tokenizer = AutoTokenizer.from_pretrained(env.model_directory("f32"))
        with path.open("w") as file:
            for line in (TREE / "examples/extract/train.jsonl").read_text().splitlines():
                example = json.loads(line)
                prompt = tokenizer.apply_chat_template(example["prompt"], add_generation_prompt=True, return_dict=False)
                ids = tokenizer.apply_chat_template(example["prompt"] + example["completion"], return_dict=False)
                file.write(json.dumps({"input_ids": ids, "labels": [-100] * len(prompt) + ids[len(prompt):]}) + "\n")
    return path


def lora(dtype):
    def one_round(env):
        options = training_options(env, dtype, rows=extract_rows(env))
        return trained(f"LoRA SFT, {dtype}, batches of 8 short rows", train_vs_peft.lathe, train_vs_peft.peer, options, step_limit(env, options))
    return one_round


def lora_long(dtype):
    def one_round(env):
        with tempfile.TemporaryDirectory() as folder:
            options = training_options(env, dtype, rows=Path(folder) / "rows.jsonl", batch=2, row_tokens=512, steps=3)
            train_vs_peft.make_rows(options, options.rows)
            return trained(f"LoRA SFT, {dtype}, batches of 2 rows of 512", train_vs_peft.lathe, train_vs_peft.peer, options, step_limit(env, options))
    return one_round


def qlora(env):
    options = training_options(env, "bf16", rows=extract_rows(env), batch=4, load_in_4bit=True)
    rows = trained("QLoRA SFT (nf4), bf16, batches of 4 short rows", train_vs_peft.lathe, train_vs_peft.peer, options)
    ours, our_peak = train_vs_peft.lathe(SimpleNamespace(**{**vars(options), "load_in_4bit": False}))
    beside = {"peer_name": "Lathe's own LoRA"}
    return rows + [row("QLoRA beside LoRA", "tokens/s", rows[0]["lathe"], ours, **beside),
                   row("QLoRA beside LoRA: peak memory", "MB", rows[1]["lathe"], our_peak / 1e6, less_is_better=True, **beside)]


def dpo(env):
    options = training_options(env, "bf16", rows=TREE / "examples/preferences/train.jsonl", steps=3)
    return trained("LoRA DPO, bf16, batches of 8 pairs", dpo_vs_trl.lathe, dpo_vs_trl.peer, options)


def grpo(env):
    options = training_options(env, "bf16", dataset=TREE / "examples/arithmetic/train.jsonl", batch=16, num_generations=8, max_completion_length=32, steps=2)
    return trained("LoRA GRPO, bf16, 16 completions of up to 32 tokens", grpo_vs_trl.lathe, grpo_vs_trl.peer, options)


# Products and text.

def products(dtype, right, libraries, sizes="512,1024,2048,3072"):
    def one_round(env):
        shape = ("--sizes", sizes, "--dtype", dtype, "--right", right, "--threads", env.threads)
        ours = json.loads(output_of(env.lathe("lathe-bench"), "matmul", *shape, "--json"))
        rows = []
        for library, name in libraries:
            theirs = json.loads(output_of(sys.executable, HERE / "blas_products.py", library, *shape))
            rows += [row(f"matmul {dtype} {one['size']}, {right}", "GFLOP/s", one["gflops"], other["gflops"], limit=ours["peak_gflops"], peer_name=name)
                     for one, other in zip(ours["results"], theirs["results"])]
        return rows
    return one_round


def tokenizing(env):
    directory, text, rows = env.model_directory("f32"), env.cache / "text.jsonl", []
    tokenizer_peers.write_text(text, env.folder, 20_000_000)
    for threads in (1, env.threads):
        with tempfile.TemporaryDirectory() as folder:
            ours = json.loads(output_of(env.lathe("lathe-data"), "tokenize", text, "--model", directory, "--output", Path(folder) / "shards",
                                        "--threads", threads, "--max_length", 0, "--json"))
        for name in ("tiktoken", "tokenizers"):
            theirs = json.loads(output_of(sys.executable, HERE / "tokenizer_peers.py", name, directory, text, "--threads", threads))
            tokenizer_peers.check_counts(name, ours, theirs)
            rows.append(row(f"text to shards, 20 MB of code and prose, {threads} thread{'s' * (threads > 1)} ({name})", "MB/s",
                            theirs["text_bytes"] / ours["seconds"] / 1e6, theirs["text_bytes"] / theirs["seconds"] / 1e6, peer_name=name))
    return rows


def all_comparisons():
    sft = "lathe-train sft --model DIR --dataset extract_rows.jsonl --dtype {} --per_device_train_batch_size 8 --lora_r 16 --lora_alpha 32 --threads 2"
    some = [Comparison(f"llama-{kind}", f"answers and prompts from {kind}", "llama.cpp", (), f"lathe-bench model MODEL.{kind}.gguf --threads 2",
                       llama_answers(kind), llama_cpp=True) for kind in LLAMA_TYPES]
    some += [
        Comparison("streams", "8 and 32 answers at once", "llama.cpp", (), "lathe-bench model MODEL.Q4_1.gguf --threads 2 -p 0 -n 64 --sequences 32",
                   llama_streams("Q4_1"), llama_cpp=True),
        Comparison("start", "whole process and its memory for one token", "llama-completion", (),
                   "lathe-model generate MODEL.Q4_1.gguf --raw --quiet --prompt Hello --max_tokens 1 --threads 2", one_token("Q4_1"), llama_cpp=True),
        Comparison("lora-f32", "LoRA SFT in f32", "PyTorch + PEFT", TRAINING, sft.format("float32"), lora("f32")),
        Comparison("lora-bf16", "LoRA SFT in bf16", "PyTorch + PEFT", TRAINING, sft.format("bf16"), lora("bf16"), isas=WITH_BF16),
        Comparison("lora-f32-512", "LoRA SFT in f32, rows of 512", "PyTorch + PEFT", TRAINING, sft.format("float32"), lora_long("f32")),
        Comparison("lora-bf16-512", "LoRA SFT in bf16, rows of 512", "PyTorch + PEFT", TRAINING, sft.format("bf16"), lora_long("bf16"), isas=WITH_BF16),
        Comparison("qlora", "QLoRA SFT in bf16", "PyTorch + PEFT + bitsandbytes", (*TRAINING, "bitsandbytes", "accelerate"), sft.format("bf16") + " --load_in_4bit",
                   qlora, isas=WITH_BF16),
        Comparison("dpo", "LoRA DPO in bf16", "TRL", (*TRAINING, "trl", "datasets"), "lathe-train dpo, as bench/peers/dpo_vs_trl.py calls it", dpo,
                   isas=WITH_BF16),
        Comparison("grpo", "LoRA GRPO in bf16", "TRL", (*TRAINING, "trl", "datasets"), "lathe-train grpo, as bench/peers/grpo_vs_trl.py calls it", grpo,
                   isas=WITH_BF16),
        Comparison("matmul-f32", "products in f32, b given as [N, K]", "OpenBLAS", ("numpy",), "lathe-bench matmul --threads 2",
                   products("f32", "transposed", [("openblas", "OpenBLAS")])),
        Comparison("matmul-f32-plain", "products in f32, b given as [K, N]", "OpenBLAS", ("numpy",), "lathe-bench matmul --right plain --threads 2",
                   products("f32", "plain", [("openblas", "OpenBLAS")])),
        Comparison("matmul-bf16", "products in bf16", "oneDNN", ("torch",), "lathe-bench matmul --dtype bf16 --threads 2",
                   products("bf16", "transposed", [("torch", "oneDNN (PyTorch)")]), isas=WITH_BF16),
        Comparison("tokenize", "text into token ids", "tiktoken, tokenizers", ("tiktoken", "tokenizers", "transformers"),
                   "lathe-data tokenize text.jsonl --model DIR --output SHARDS --max_length 0 --threads 2", tokenizing),
    ]
    return some
