#!/usr/bin/env python3
"""For the tiny models whose own folders do not have it: the 32 most likely tokens after a prompt, one after another, in float64."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import AutoModelForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
MODELS = ["tiny_llama/untied", "tiny_llama/tied", "tiny_llama31", "tiny_llama_bias", "tiny_mistral/window", "tiny_mistral/nemo", "tiny_qwen2/plain",
          "tiny_qwen2/windows", "tiny_qwen3/untied", "tiny_qwen3/tied", "tiny_qwen3/options", "tiny_gemma3", "tiny_smollm3"]
PROMPT_TOKENS = 9
torch.set_num_threads(1)

rows = []
for name in MODELS:
    model = tiny.load_eager(AutoModelForCausalLM, oracle.HERE / name).double().eval()
    prompt = json.loads((oracle.HERE / name / "expected.json").read_text())["input_ids"][1][:PROMPT_TOKENS]
    rows.append({"model": name, **tiny.greedy_tokens(model, prompt)})
    print(name, rows[-1]["least_margin"])
oracle.write_rows(HERE / "cases.json", rows)
oracle.write_versions(HERE)
