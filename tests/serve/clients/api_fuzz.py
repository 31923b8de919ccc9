"""Sends lathe-serve what schemathesis makes of its own description, good and bad: no 500, no hang, and every answer is
what the description says; at the end the server still works and nothing is left over.

usage: api_fuzz.py PROGRAM TESTS_GOLDEN [EXAMPLES]
Ends with 77 (ctest: skipped) where schemathesis is missing.
"""
import importlib.util
import json
import pathlib
import subprocess
import sys
import tempfile
import urllib.request

if importlib.util.find_spec("schemathesis") is None:
    print("skipped: no schemathesis; pip install -r tests/serve/clients/requirements.txt")
    sys.exit(77)

from tiny_server import TOOL_TEMPLATE, Server, make_model

CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
          "unsupported_method")
GAUGES = ("vllm:num_requests_running{", "vllm:num_requests_waiting{", "vllm:kv_cache_usage_perc{")


def ask(url: str, body: dict | None = None) -> str:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=60) as answer:
        return answer.read().decode()


def main() -> None:
    program, golden = sys.argv[1], pathlib.Path(sys.argv[2])
    examples = sys.argv[3] if len(sys.argv) > 3 else "20"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        adapters = folder / "adapters"
        adapters.mkdir()
        model = make_model(golden, folder, TOOL_TEMPLATE)
        server = Server(program, model, "--max_model_len", "96", "--adapter_root", str(adapters))
        good = {"prompt": "it is", "max_tokens": 8, "temperature": 0}
        before = json.loads(ask(server.url + "/v1/completions", good))["choices"]
        fuzz = subprocess.run(
            [sys.executable, "-m", "schemathesis.cli", "run", server.url + "/openapi.json",
             "--checks", ",".join(CHECKS),
             "--max-examples", examples, "--seed", "1", "--generation-deterministic", "--request-timeout", "30",
             "--phases", "examples,coverage,fuzzing", "--no-color"],
            cwd=folder, check=False)
        assert json.loads(ask(server.url + "/v1/completions", good))["choices"] == before
        for line in ask(server.url + "/metrics").splitlines():
            if line.startswith(GAUGES):
                assert line.endswith(" 0"), line
        server.stop()
        sys.exit(fuzz.returncode)


if __name__ == "__main__":
    main()
