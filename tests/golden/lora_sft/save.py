"""Adapters as PEFT writes them, made independent of the machine."""

import json
import tempfile
from pathlib import Path


def save_adapter(model, folder):
    """As PEFT writes it, less the model card and the path of the base model."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch)
        config = json.loads((Path(scratch) / "adapter_config.json").read_text())
        (folder / "adapter_model.safetensors").write_bytes((Path(scratch) / "adapter_model.safetensors").read_bytes())
    config["base_model_name_or_path"] = ""
    config["target_modules"] = sorted(config["target_modules"]) if isinstance(config["target_modules"], list) else config["target_modules"]
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
