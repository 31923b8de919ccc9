"""lathe-serve with the tiny golden Llama, for the scripts that drive it."""
import atexit
import json
import pathlib
import shutil
import signal
import subprocess
import sys

# Without the role, whose word is none of the tiny model's tokens.
TEMPLATE = ("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
            "{% if add_generation_prompt %}<|im_start|>{% endif %}")
# With a mark by which the server knows how such a model writes calls.
TOOL_TEMPLATE = TEMPLATE + "{# tools: <tool_call> #}"


def make_model(golden: pathlib.Path, folder: pathlib.Path, template: str = TEMPLATE) -> pathlib.Path:
    model = folder / "tiny"
    model.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(golden / "tiny_llama/untied" / name, model)
    shutil.copy(golden / "tokenizer/byte_level/tokenizer.json", model)
    (model / "tokenizer_config.json").write_text(json.dumps({"chat_template": template, "eos_token": "<|im_end|>"}))
    return model


class Server:
    def __init__(self, program: str, model: pathlib.Path, *flags: str):
        self.process = subprocess.Popen([program, str(model), "--port", "0", "--dtype", "f32", *flags],
                                        stderr=subprocess.PIPE, text=True)
        atexit.register(self.process.kill)  # where a check fails
        self.url = ""
        for line in self.process.stderr:
            if "listens on" in line:
                self.url = line.split()[-1]
            if line.startswith("loaded"):
                return
        sys.exit(f"the server ended with {self.process.wait()}")

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.stderr.read()
        assert self.process.wait(60) == 0
