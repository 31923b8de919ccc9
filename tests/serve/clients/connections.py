"""Ten thousand idle connections and a thousand streams in bounded memory, with answers for whoever else asks.

usage: connections.py PROGRAM TESTS_GOLDEN
Ends with 77 (ctest: skipped) where a process may not have so many descriptors.
"""
import asyncio
import json
import pathlib
import re
import resource
import socket
import sys
import tempfile
import urllib.request

from tiny_server import Server, make_model

IDLE, STREAMS = 10_000, 1_000
MOST_KIB_IDLE, MOST_KIB_STREAM = 16, 256  # each adds to what is resident; a stream may buffer what is not read
BODY = {"prompt": "it is", "temperature": 0, "max_tokens": 20, "ignore_eos": True}


def resident_kib(process: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{process}/status").read_text()).group(1))


def answer(url: str) -> str:
    request = urllib.request.Request(url + "/v1/completions", json.dumps(BODY).encode())
    with urllib.request.urlopen(request, timeout=60) as whole:
        return json.load(whole)["choices"][0]["text"]


def idle_connections(server: Server, port: int, expected: str) -> None:
    before = resident_kib(server.process.pid)
    connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(IDLE)]
    assert answer(server.url) == expected
    for connection in connections:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: here\r\n\r\n")
    for connection in connections:
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    each = (resident_kib(server.process.pid) - before) / IDLE
    print(f"{IDLE} idle connections, each asked once: {each:.1f} KiB each")
    assert each < MOST_KIB_IDLE, each
    assert answer(server.url) == expected
    for connection in connections:
        connection.close()


async def stream(port: int) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    body = json.dumps(BODY | {"stream": True}).encode()
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nConnection: close\r\nContent-Length: "
                 + str(len(body)).encode() + b"\r\n\r\n" + body)
    text = (await reader.read(-1)).decode()
    writer.close()
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    assert events and events[-1] == "[DONE]", text[-300:]
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1])


async def streams(server: Server, port: int, expected: str) -> None:
    before = resident_kib(server.process.pid)
    texts = await asyncio.gather(*(stream(port) for _ in range(STREAMS)))
    assert all(text == expected for text in texts)
    each = (resident_kib(server.process.pid) - before) / STREAMS
    print(f"{STREAMS} streams at once, the same bytes in each: {each:.1f} KiB each")
    assert each < MOST_KIB_STREAM, each


def main() -> None:
    program, golden = sys.argv[1], pathlib.Path(sys.argv[2])
    wanted, (_, most) = IDLE + 200, resource.getrlimit(resource.RLIMIT_NOFILE)
    if most < wanted:
        print(f"skipped: {most} descriptors are allowed, {wanted} are needed (ulimit -Hn)")
        sys.exit(77)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with tempfile.TemporaryDirectory() as name:
        server = Server(program, make_model(golden, pathlib.Path(name)), "--max_waiting", str(STREAMS))
        try:
            port, expected = int(server.url.rsplit(":", 1)[1].rstrip("/")), answer(server.url)
            idle_connections(server, port, expected)
            asyncio.run(streams(server, port, expected))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
