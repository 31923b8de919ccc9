#!/usr/bin/env python3
"""llama_cpp.py LLAMA_BENCH MODEL.gguf…: lathe-bench model beside llama.cpp's llama-bench, in turn, on the same files with the same threads.

Prints a row of a table for each file: tokens a second of an answer of 128 and of a prompt of 512, medians of the rounds, and the medians of the rounds' ratios.
llama.cpp: pip download --no-binary :all: llama-cpp-python, unpacked; in its vendor/llama.cpp: cmake -B build -DGGML_NATIVE=ON -DLLAMA_CURL=OFF && cmake --build build
--target llama-bench. Run on a machine that does nothing else: llama.cpp's threads spin."""

import argparse
import json
import statistics
import subprocess


def run(command: list[str]) -> object:
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def peer(llama_bench: object, model: object, threads: int) -> dict:
    """llama-bench's tokens a second, under the names of Lathe's."""
    tests = run([str(llama_bench), "-m", str(model), "-t", str(threads), "-p", "512", "-n", "128", "-r", "2", "-o", "json"])
    return {"pp512" if test["n_prompt"] else "tg128": test["avg_ts"] for test in tests}


def lathe(program: object, model: object, threads: int) -> dict:
    return run([str(program), "model", str(model), "--threads", str(threads), "-r", "3", "--json"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_bench")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--program", default="build/bin/lathe-bench")
    options = parser.parse_args()
    print("| file | answer, Lathe / llama.cpp | ratio | prompt, Lathe / llama.cpp | ratio |\n|---|---|---|---|---|")
    for model in options.models:
        theirs, ours = [], []
        for _ in range(options.rounds):
            theirs.append(peer(options.llama_bench, model, options.threads))
            ours.append(lathe(options.program, model, options.threads))
        cells = []
        for name in ("tg128", "pp512"):
            median = [statistics.median(float(one[name]) for one in side) for side in (ours, theirs)]
            ratio = statistics.median(float(our[name]) / their[name] for our, their in zip(ours, theirs))
            cells.append(f"{median[0]:.0f} / {median[1]:.0f} | {ratio:.2f}")
        print(f"| {model.rsplit('/', 1)[-1]} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
