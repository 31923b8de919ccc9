#!/usr/bin/env python3
"""What the programs compute, to the bit: text with log-probabilities, adapters, gradients, preferences, rollouts, on every instruction set and on simt.

usage: tests/bits/bits.py [--record | --check] [--quick] [--only WORD] [--golden FILE] BUILD

BUILD is a build folder with bin/lathe-model and bin/lathe-train. A case is one run of a program; its value is a hash of what must
never change: tokens and log-probabilities, safetensors files, metrics.jsonl. --check (the default) compares with the golden file
(tests/golden/bits.json) and fails with the names of the cases that differ; instruction sets that this machine lacks are left out
and said so. --record adds cases that the golden file does not have yet, and never changes one that it has. --quick takes a part
of each kind, for every test run; --only takes the cases whose name holds WORD.

A change that is meant to change bits replaces the golden lines that it changes, in a commit that says why.
LATHE_TEST_MODEL names the GGUF file of SmolLM2-135M-Instruct; without it the cases on that model are left out.
"""
import argparse
import hashlib
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SETS = {"baseline": "sse4_2", "avx2": "avx2", "avx512": "avx512vl", "avx512_bf16": "avx512_bf16", "amx": "amx_bf16"}
# Counts the bytes of what it is told, completion and ids among them: rewards that differ within a group.
JUDGE = "while IFS= read -r line; do echo $((${#line} % 7)); done"
SKIPPED = 77  # ctest's SKIP_RETURN_CODE


def sets_of_machine():
    flags = set()
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            flags = set(line.split())
            break
    return [name for name, flag in SETS.items() if flag in flags]


def digest(*parts):
    return hashlib.sha256(b"\0".join(part if isinstance(part, bytes) else part.encode() for part in parts)).hexdigest()[:32]


class Programs:
    """Runs the programs of a build folder on models and rows in a folder that goes away."""

    def __init__(self, build, folder):
        self.build, self.folder = build, folder
        self.smollm2 = os.environ.get("LATHE_TEST_MODEL", "")
        self.tiny = folder / "tiny"
        self.tiny.mkdir()
        for file in ("config.json", "model.safetensors"):
            shutil.copy(ROOT / "tests/golden/tiny_llama/untied" / file, self.tiny)
        shutil.copy(ROOT / "tests/golden/tokenizer/byte_level/tokenizer.json", self.tiny)
        numbers = random.Random(1)
        self.rows = folder / "rows.jsonl"
        with self.rows.open("w") as rows:
            for _ in range(24):
                ids = [int(numbers.random() * 320) for _ in range(6 + int(numbers.random() * 30))]
                rows.write(json.dumps({"input_ids": ids}) + "\n")
        # Text ends with an EOS, and digits are among the tokens that the model has.
        self.tiny_with_eos = folder / "tiny_with_eos"
        shutil.copytree(self.tiny, self.tiny_with_eos)
        (self.tiny_with_eos / "tokenizer_config.json").write_text('{"eos_token": "<|im_end|>"}')
        def digits():
            return "".join(numbers.choice("0123456789") for _ in range(2 + int(numbers.random() * 16)))
        self.pairs, self.prompts = folder / "pairs.jsonl", folder / "prompts.jsonl"
        self.pairs.write_text("".join(
            json.dumps({"prompt": digits(), "chosen": digits() + "1", "rejected": digits() + "2"}) + "\n" for _ in range(8)))
        self.prompts.write_text("".join(json.dumps({"prompt": digits()}) + "\n" for _ in range(4)))

    def run(self, program, arguments, isa):
        environment = dict(os.environ)
        if isa:
            environment["LATHE_ISA"] = isa
        command = [str(self.build / "bin" / program), *map(str, arguments)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
        return done.stdout

    def generate(self, model, prompt, tokens, isa, *more):
        """Hashes of the first 8 tokens with their log-probabilities, and of all."""
        answer = json.loads(self.run("lathe-model", ["generate", model, "--prompt", prompt, "--max_tokens", tokens, "--json", *more], isa))
        def of(count):
            return digest(json.dumps([answer["tokens"][:count], answer["logprobs"][:count]]))
        return {"8": of(8), "all": of(None)} if tokens > 8 else {"8": of(8)}

    def train(self, model, rows, isa, *more, method="sft"):
        """Hashes of what a run leaves: the result, the moments (which hold the gradients), the logged numbers."""
        output = self.folder / "run"
        shutil.rmtree(output, ignore_errors=True)
        self.run("lathe-train", [method, "--model", model, "--dataset", rows, "--output_dir", output, "--logging_steps", "1", *more], isa)
        parts = {}
        for file in sorted(output.rglob("*")):
            if file.suffix == ".safetensors" or file.name == "metrics.jsonl":
                parts[str(file.relative_to(output))] = digest(file.read_bytes())
        return parts


def prompts():
    lines = (ROOT / "tests/golden/smollm2/greedy.json").read_text().splitlines()
    found = [json.loads(line.rstrip(","))["messages"][-1]["content"] for line in lines if line.startswith("{")]
    return found[:20]


def cases(quick, sets, smollm2):
    """name → function of Programs that gives {part: hash}."""
    result = {}
    for isa in sets:
        for dtype in ("f32", "bf16"):
            for number, prompt in enumerate(prompts() if smollm2 else []):
                if quick and number != {"f32": 3, "bf16": 8}[dtype]:
                    continue
                result[f"smollm2 {isa} {dtype} prompt {number}"] = lambda p, isa=isa, dtype=dtype, prompt=prompt: p.generate(
                    p.smollm2, prompt, 8 if quick else 64, isa, "--weights", dtype)
                if number == {"f32": 3, "bf16": 8}[dtype]:  # the file's blocks as they are
                    result[f"smollm2 {isa} {dtype} file prompt {number}"] = lambda p, isa=isa, dtype=dtype, prompt=prompt: p.generate(
                        p.smollm2, prompt, 8 if quick else 64, isa, "--weights", "file", "--dtype", dtype)
            if smollm2 and not quick:
                result[f"smollm2 {isa} {dtype} lora 20 steps"] = lambda p, isa=isa, dtype=dtype: p.train(
                    p.smollm2, ROOT / "examples/extract/train.jsonl", isa, "--dtype", dtype, "--max_steps", "20",
                    "--per_device_train_batch_size", "2")
    for place in [*sets, "simt"]:
        isa, device = (None, ["--device", "simt"]) if place == "simt" else (place, [])
        for dtype in ("f32", "bf16"):
            def add(name, function):
                result[f"tiny {place} {dtype} {name}"] = function
            # One step of every weight: AdamW's moments are the gradients.
            add("gradients", lambda p, isa=isa, device=device, dtype=dtype: p.train(
                p.tiny, p.rows, isa, *device, "--dtype", dtype, "--use_peft", "false", "--max_steps", "1", "--max_grad_norm", "0"))
            add("lora", lambda p, isa=isa, device=device, dtype=dtype: p.train(
                p.tiny, p.rows, isa, *device, "--dtype", dtype, "--max_steps", "4", "--save_steps", "2", "--lora_r", "4"))
            # What both sequences of a pair begin with is computed once.
            add("dpo", lambda p, isa=isa, device=device, dtype=dtype: p.train(
                p.tiny_with_eos, p.pairs, isa, *device, "--dtype", dtype, "--max_steps", "2", "--per_device_train_batch_size", "4",
                "--learning_rate", "1e-3", "--lora_r", "4", method="dpo"))
            add("grpo", lambda p, isa=isa, device=device, dtype=dtype: p.train(
                p.tiny_with_eos, p.prompts, isa, *device, "--dtype", dtype, "--max_steps", "2", "--num_generations", "4",
                "--per_device_train_batch_size", "8", "--max_completion_length", "6", "--num_iterations", "2", "--beta", "0.05",
                "--learning_rate", "1e-3", "--lora_r", "4", "--reward_command", JUDGE, method="grpo"))
            if not quick:
                add("dpo of every weight", lambda p, isa=isa, device=device, dtype=dtype: p.train(
                    p.tiny_with_eos, p.pairs, isa, *device, "--dtype", dtype, "--max_steps", "2", "--per_device_train_batch_size", "4",
                    "--learning_rate", "1e-3", "--use_peft", "false", "--loss_type", "sigmoid", "aot", "sft", method="dpo"))
                add("lora packed 8-bit checkpointed", lambda p, isa=isa, device=device, dtype=dtype: p.train(
                    p.tiny, p.rows, isa, *device, "--dtype", dtype, "--max_steps", "3", "--packing", "--max_length", "64", "--optim",
                    "adamw_8bit", "--gradient_checkpointing", "--use_rslora", "--lora_r", "64"))
            for cache in ("auto", "int8", "f16"):
                if quick and cache != "auto":
                    continue
                add(f"generate kv {cache}", lambda p, isa=isa, device=device, dtype=dtype, cache=cache: p.generate(
                    p.tiny, "@ # ^ ~ | = +", 24, isa, *device, "--dtype", dtype, "--raw", "--kv_cache_dtype", cache,
                    "--temperature", "0.8", "--top_k", "40", "--top_p", "0.95", "--seed", "7"))
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--golden", type=pathlib.Path, default=ROOT / "tests/golden/bits.json")
    options = parser.parse_args()

    sets = sets_of_machine()
    for missing in [name for name in SETS if name not in sets]:
        print(f"left out: {missing}, which this machine does not have")
    golden = json.loads(options.golden.read_text()) if options.golden.exists() else {}
    different, compared = [], 0
    with tempfile.TemporaryDirectory() as folder:
        programs = Programs(options.build.resolve(), pathlib.Path(folder))
        if not programs.smollm2:
            print("left out: SmolLM2, as LATHE_TEST_MODEL is not set")
        for name, function in cases(options.quick, sets, programs.smollm2).items():
            if options.only not in name:
                continue
            found = function(programs)
            expected = golden.get(name, {})
            if options.record:
                golden[name] = {**found, **expected}
                continue
            for part, value in found.items():
                compared += 1
                if expected.get(part) != value:
                    different.append(f"{name}: {part}: {'not recorded' if part not in expected else 'other bits'}")
    if options.record:
        lines = [json.dumps(name) + ": " + json.dumps(parts) for name, parts in sorted(golden.items())]
        options.golden.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(f"{len(golden)} cases in {options.golden}")
        return 0
    for line in different:
        print(line)
    print(f"{compared} values compared, {len(different)} differ")
    if compared == 0:
        return SKIPPED
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
