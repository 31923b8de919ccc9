#!/usr/bin/env python3
"""llama_server.py LLAMA_SERVER MODEL.gguf…: lathe-serve beside llama.cpp's llama-server, in turn, on the same files with the same threads.

Prints rows of a table for each file: from a process's start to its first token over HTTP, tokens a second of 32 streams, a prompt of 2000, the first
token of a prompt whose first 1024 tokens are cached, and the memory that is resident afterwards. Medians of the rounds, and of the rounds' ratios.
llama.cpp: as llama_cpp.py says, with --target llama-server. Run on a machine that does nothing else, with the files read before (page cache)."""

import argparse
import json
import pathlib
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

STREAMS = 32


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A process, from its start to its end; it has answered with a token when this is made."""

    def __init__(self, command: list[str], port: int):
        self.url = f"http://127.0.0.1:{port}"
        begin = time.perf_counter()
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        body = json.dumps({"prompt": "The", "max_tokens": 1, "temperature": 0, "stream": True}).encode()
        while True:
            try:
                with urllib.request.urlopen(urllib.request.Request(self.url + "/v1/completions", body), timeout=60) as answer:
                    if answer.readline().startswith(b"data:"):
                        break
            except OSError:  # not there yet, or 503: loading
                if self.process.poll() is not None:
                    sys.exit(f"{command[0]} ended with {self.process.returncode}")
            time.sleep(0.002)
        self.started_ms = 1000 * (time.perf_counter() - begin)

    def resident_mib(self) -> float:
        fields = dict(line.split(":", 1) for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines())
        return int(fields["VmRSS"].split()[0]) / 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def load(program: str, servers: list[Server], **options: int) -> list[dict]:
    flags = [text for key, value in options.items() for text in (f"--{key}", str(value))]
    command = [program, "serve", *(server.url for server in servers), *flags, "--json"]
    results = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["results"]
    for result in results:
        if result["completed"] != result["requests"]:
            sys.exit(f"{result['url']}: {result['requests'] - result['completed']} requests failed: {result.get('last_error')}")
    return results


def measure(options: argparse.Namespace, model: str) -> dict[str, list[tuple[float, float]]]:
    """name → (ours, theirs) of each round"""
    found: dict[str, list[tuple[float, float]]] = {}
    tokens, threads = "16384", str(options.threads)
    bench = options.programs + "/lathe-bench"

    def start() -> list[Server]:
        ports = free_port(), free_port()
        return [Server([options.programs + "/lathe-serve", model, "--port", str(ports[0]), "--threads", threads, "--kv_cache_tokens", tokens,
                        "--max_num_seqs", str(STREAMS)], ports[0]),
                Server([options.llama_server, "-m", model, "--port", str(ports[1]), "-t", threads, "-c", tokens, "-np", str(STREAMS),
                        "--kv-unified", "--no-webui"], ports[1])]

    def note(name: str, pair: list[float]) -> None:
        found.setdefault(name, []).append((pair[0], pair[1]))
        print(f"{name}: {pair[0]:.1f} {pair[1]:.1f}", file=sys.stderr, flush=True)

    for _ in range(options.starts):
        pathlib.Path(model).read_bytes()  # into the page cache
        servers = start()
        note("start to first token, ms", [server.started_ms for server in servers])
        for server in servers:
            server.stop()
    servers = start()
    for seed in range(options.rounds):
        results = load(bench, servers, concurrency=STREAMS, requests=options.requests, prompt_tokens=128, output_tokens=64, seed=seed)
        note(f"{STREAMS} streams, tokens/s in all", [result["total_tokens_per_second"] for result in results])
        note(f"{STREAMS} streams, output tokens/s", [result["output_tokens_per_second"] for result in results])
        results = load(bench, servers, concurrency=1, requests=2, prompt_tokens=2000, output_tokens=1, seed=1000 + seed)
        note("prompt of 2000, tokens/s", [2000 / result["ttft_ms"]["mean"] * 1000 for result in results])
        first = load(bench, servers, concurrency=1, requests=1, shared_prefix=1024, prompt_tokens=8, output_tokens=1, seed=2000 + seed)
        later = load(bench, servers, concurrency=1, requests=9, shared_prefix=1024, prompt_tokens=8, output_tokens=1, seed=2000 + seed)
        note("1024 + 8 tokens, ms to the first", [result["ttft_ms"]["mean"] for result in first])
        note("the same with the 1024 cached, ms", [result["ttft_ms"]["p50"] for result in later])
    note("resident, MiB", [server.resident_mib() for server in servers])
    for server in servers:
        server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("llama_server")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--programs", default="build/bin")
    options = parser.parse_args()
    print("| file | what | Lathe | llama.cpp | Lathe / llama.cpp |\n|---|---|---|---|---|")
    for model in options.models:
        for name, pairs in measure(options, model).items():
            ours, theirs = (statistics.median(pair[side] for pair in pairs) for side in (0, 1))
            ratio = statistics.median(pair[0] / pair[1] for pair in pairs)
            print(f"| {pathlib.Path(model).name} | {name} | {ours:.0f} | {theirs:.0f} | {ratio:.2f} |", flush=True)


if __name__ == "__main__":
    main()
