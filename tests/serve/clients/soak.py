"""lathe-serve at saturation for as long as it is told: good requests, bad ones, clients that leave or read slowly,
adapters that come and go, keys that are read again. Afterwards memory is flat, pages are free, gauges are 0, every
request was answered or cleanly ended, and greedy answers were the same bytes all along.

usage: soak.py PROGRAM MODEL.gguf [MINUTES]
Not a part of ctest: ten minutes with a real model. Needs nothing but Python; adapters are made here, for a Llama whose
sizes GGUF metadata would say: those of SmolLM2-135M.
"""
import asyncio
import collections
import json
import pathlib
import random
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time

CLIENTS = 48
LAYERS, HIDDEN, RANK = 30, 576, 4
KEY = "soak-key"
GAUGES = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc",
          "lathe:kv_cache_pagesused")
GREEDY = [{"prompt": prompt, "temperature": 0, "max_tokens": tokens, "ignore_eos": True}
          for prompt, tokens in (("The capital of France is", 12), ("def fibonacci(n):", 24), ("Once upon a time", 40))]
BAD = [{"prompt": ""}, {"prompt": "a", "n": -1}, {"prompt": "a", "max_tokens": 10**9}, {"prompt": [10**9]}, {},
       {"prompt": "a", "temperature": "hot"}, {"prompt": "a", "guided_regex": "("}, {"prompt": "a" * 200_000}]


def write_adapter(folder: pathlib.Path, seed: int) -> None:
    folder.mkdir(parents=True)
    folder.joinpath("adapter_config.json").write_text(json.dumps(
        {"peft_type": "LORA", "r": RANK, "lora_alpha": 8, "target_modules": ["q_proj"], "bias": "none",
         "task_type": "CAUSAL_LM"}))
    generator, header, data = random.Random(seed), {}, bytearray()
    for layer in range(LAYERS):
        for side, shape in (("A", (RANK, HIDDEN)), ("B", (HIDDEN, RANK))):
            values = [generator.uniform(-0.02, 0.02) for _ in range(shape[0] * shape[1])]
            begin = len(data)
            data += struct.pack(f"<{len(values)}f", *values)
            header[f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{side}.weight"] = {
                "dtype": "F32", "shape": shape, "data_offsets": [begin, len(data)]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    folder.joinpath("adapter_model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


class Connection:
    """One request by hand, so that it can be left at any byte."""

    def __init__(self, port: int):
        self.port = port

    async def __aenter__(self):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 16)
        return self

    async def __aexit__(self, *unused):
        self.writer.close()

    async def send(self, method: str, path: str, body: bytes = b"") -> None:
        self.writer.write(f"{method} {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {KEY}\r\n"
                          f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        await self.writer.drain()

    async def head(self) -> int:
        text = await self.reader.readuntil(b"\r\n\r\n")
        self.chunked = b"chunked" in text.lower()
        fields = dict(line.split(": ", 1) for line in text.decode().lower().split("\r\n")[1:] if ": " in line)
        self.length = int(fields.get("content-length", 0))
        return int(text.split()[1])

    async def chunk(self) -> bytes:
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        return (await self.reader.readexactly(size + 2))[:size]

    async def body(self) -> bytes:
        if not self.chunked:
            return await self.reader.readexactly(self.length)
        whole = b""
        while piece := await self.chunk():
            whole += piece
        return whole

    async def ask(self, path: str, body: dict, method: str = "POST") -> tuple[int, bytes]:
        await self.send(method, path, json.dumps(body).encode() if method == "POST" else b"")
        return await self.head(), await self.body()


class Soak:
    def __init__(self, port: int, deadline: float):
        self.port, self.deadline = port, deadline
        self.expected, self.wrong = [], []
        self.counts = collections.Counter()

    def note(self, what: str, holds: bool, found: object = "") -> None:
        self.counts[what] += 1
        if not holds:
            self.wrong.append(f"{what}: {str(found)[-300:]}")

    @staticmethod
    def some_request(rng: random.Random) -> dict:
        body = {"prompt": "word " * rng.choice((1, 5, 30, 200)) + str(rng.randrange(50)),
                "max_tokens": rng.choice((1, 8, 32, 96)), "temperature": rng.choice((0, 1)),
                "seed": rng.randrange(1000), "n": rng.choice((1, 1, 1, 2)), "priority": rng.choice((0, 0, 1)),
                "model": rng.choice(("soak", "soak", "one", "two"))}
        if rng.random() < 0.2:
            body["logprobs"] = 3
            body["echo"] = rng.random() < 0.5
        if rng.random() < 0.1:
            body["guided_regex"] = "[a-z]{1,40}"
        return body

    async def good(self, rng: random.Random) -> None:
        async with Connection(self.port) as connection:
            for _ in range(rng.randrange(1, 4)):
                status, body = await connection.ask("/v1/completions", self.some_request(rng))
                whole = status == 200 and all(choice["finish_reason"] in ("stop", "length")
                                              for choice in json.loads(body)["choices"])
                self.note(f"answer {status}", whole or status in (404, 429), body)

    async def same(self, rng: random.Random) -> None:
        which = rng.randrange(len(GREEDY))
        async with Connection(self.port) as connection:
            status, body = await connection.ask("/v1/completions", GREEDY[which])
            self.note(f"greedy {status}", status == 429 or json.loads(body)["choices"] == self.expected[which], body)

    async def stream(self, rng: random.Random) -> None:
        async with Connection(self.port) as connection:
            status, body = await connection.ask("/v1/completions", self.some_request(rng) | {"stream": True})
            whole = body.endswith(b"data: [DONE]\n\n") and b'data: {"error"' not in body
            self.note(f"stream {status}", status in (404, 429) or whole, body)

    async def leave(self, rng: random.Random) -> None:
        async with Connection(self.port) as connection:
            await connection.send("POST", "/v1/completions", json.dumps(
                self.some_request(rng) | {"stream": True, "max_tokens": 400, "ignore_eos": True,
                                          "guided_regex": None}).encode())
            if rng.random() < 0.7 and await connection.head() == 200:
                for _ in range(rng.randrange(6)):
                    await connection.chunk()
            self.note("left", True)

    async def slow(self, rng: random.Random) -> None:
        async with Connection(self.port) as connection:
            await connection.send("POST", "/v1/completions", json.dumps(
                {"prompt": "slow", "max_tokens": 200, "ignore_eos": True, "stream": True, "logprobs": 20}).encode())
            if await connection.head() != 200:
                return
            while await connection.chunk():
                await asyncio.sleep(rng.random() * 0.05)
            self.note("slow", True)

    async def bad(self, rng: random.Random) -> None:
        async with Connection(self.port) as connection:
            status, body = await connection.ask("/v1/completions", rng.choice(BAD))
            self.note("bad", status == 400, body)
            status, _ = await connection.ask("/v1/models", {}, "GET")
            self.note("after bad", status == 200)

    async def half(self, rng: random.Random) -> None:
        async with Connection(self.port) as connection:
            request = b"POST /v1/completions HTTP/1.1\r\nContent-Length: 1000\r\n\r\n{"
            connection.writer.write(request[:rng.randrange(1, len(request))])
            await connection.writer.drain()
            self.note("half", True)

    async def embed(self, rng: random.Random) -> None:
        async with Connection(self.port) as connection:
            status, body = await connection.ask("/v1/embeddings", {"input": ["word " * rng.randrange(1, 300), "a"]})
            self.note(f"embed {status}", status == 429 or len(json.loads(body)["data"]) == 2, body)

    async def adapter(self, rng: random.Random) -> None:
        name = rng.choice(("one", "two"))
        async with Connection(self.port) as connection:
            path, body = rng.choice((("/v1/load_lora_adapter", {"lora_name": name, "lora_path": name}),
                                     ("/v1/unload_lora_adapter", {"lora_name": name})))
            status, text = await connection.ask(path, body)
            self.note(f"adapter {status}", status in (200, 400, 404), text)

    async def client(self, seed: int) -> None:
        rng = random.Random(seed)
        actions = [self.good] * 8 + [self.stream] * 5 + [self.same] * 4 + [self.leave] * 4 + [
            self.slow, self.bad, self.bad, self.half, self.embed, self.adapter]
        while time.time() < self.deadline:
            action = rng.choice(actions)
            try:
                await asyncio.wait_for(action(rng), 300)
            except asyncio.TimeoutError:
                self.note("hang", False, action.__name__)
            except (asyncio.IncompleteReadError, ConnectionError) as error:
                self.note("cut", action.__name__ == "half", f"{action.__name__}: {error!r}")


def resident_mib(pid: int) -> float:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0


async def gauges(port: int) -> dict:
    async with Connection(port) as connection:
        _, body = await connection.ask("/metrics", {}, "GET")
    values = {}
    for line in body.decode().splitlines():
        if not line.startswith("#"):
            name, value = line.rsplit(" ", 1)
            state = name.split('state="')[1].split('"')[0] if 'state="' in name else ""
            values[name.split("{")[0] + state] = float(value)
    return values


async def run(process: subprocess.Popen, port: int, keys: pathlib.Path, minutes: float) -> None:
    soak = Soak(port, time.time() + minutes * 60)
    async with Connection(port) as connection:
        for body in GREEDY:
            soak.expected.append(json.loads((await connection.ask("/v1/completions", body))[1])["choices"])
    resident = []

    async def watch() -> None:
        while time.time() < soak.deadline:
            await asyncio.sleep(min(10, max(0.1, soak.deadline - time.time())))
            keys.write_text(f"# {time.time()}\n{KEY} soak admin\n")
            process.send_signal(signal.SIGHUP)
            resident.append(resident_mib(process.pid))

    await asyncio.gather(watch(), *(soak.client(seed) for seed in range(CLIENTS)))
    values = {}
    for _ in range(600):
        values = await gauges(port)
        if not any(values[name] for name in GAUGES):
            break
        await asyncio.sleep(0.1)
    await soak.same(random.Random(0))
    print(dict(sorted(soak.counts.items())))
    for name in ("vllm:generation_tokens_total", "vllm:num_preemptions_total", "vllm:prefix_cache_hits_total",
                 "lathe:kv_cache_pagesfree", "lathe:kv_cache_pagescached", "lathe:kv_cache_pagesused"):
        print(f"{name} {values[name]:.0f}")
    resident.append(resident_mib(process.pid))
    third = max(1, len(resident) // 3)
    middle, end = max(resident[third:2 * third] or resident), max(resident[-third:])
    print(f"resident MiB: first {resident[0]:.0f}, most in the middle third {middle:.0f}, in the last {end:.0f}")
    for name in GAUGES:
        if values[name] != 0:
            soak.wrong.append(f"{name} is {values[name]}")
    if end > middle * 1.03 + 8:
        soak.wrong.append(f"memory grows: {middle:.0f} to {end:.0f} MiB")
    for line in soak.wrong[:40]:
        print("WRONG", line)
    sys.exit(1 if soak.wrong else 0)


def main() -> None:
    program, model, minutes = sys.argv[1], sys.argv[2], float(sys.argv[3]) if len(sys.argv) > 3 else 10
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for seed, adapter in enumerate(("one", "two")):
            write_adapter(folder / "adapters" / adapter, seed)
        keys = folder / "keys"
        keys.write_text(f"{KEY} soak admin\n")
        process = subprocess.Popen(
            [program, model, "--port", "0", "--served_model_name", "soak", "--adapter_root", str(folder / "adapters"),
             "--api_keys", str(keys), "--kv_cache_tokens", "8192", "--max_num_seqs", "24", "--max_waiting", "48"],
            stderr=subprocess.PIPE, text=True)
        port = 0
        for line in process.stderr:
            if "listens on" in line:
                port = int(line.rstrip("\n/").rsplit(":", 1)[1])
            if line.startswith("loaded"):
                break
        threading.Thread(target=process.stderr.read, daemon=True).start()
        try:
            asyncio.run(run(process, port, keys, minutes))
        finally:
            process.send_signal(signal.SIGTERM)
            print("the server ended with", process.wait(60))


if __name__ == "__main__":
    main()
