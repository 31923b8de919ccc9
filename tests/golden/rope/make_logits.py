#!/usr/bin/env python3
"""Logits after a text of more tokens than the original context, for every way to stretch it: tiny_llama/untied with other rope_parameters, in float64."""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM  # noqa: E402

HERE = Path(__file__).resolve().parent
ORIGINAL, TOKENS = 32, 70
torch.set_num_threads(1)

WAYS = [{"rope_type": "linear", "factor": 4.0}, {"rope_type": "dynamic", "factor": 2.0},
        {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": ORIGINAL},
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": ORIGINAL},
        {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0 + 0.1 * i for i in range(8)], "long_factor": [1.0 + 0.5 * i for i in range(8)],
         "original_max_position_embeddings": ORIGINAL}]

ids = tiny.sequences([TOKENS], seed=71)[0]
rows = []
for way in WAYS:
    config = json.loads((tiny.FOLDER / "untied/config.json").read_text())
    # transformers takes dynamic's original context from max_position_embeddings.
    config["max_position_embeddings"] = ORIGINAL if way["rope_type"] == "dynamic" else 4 * ORIGINAL
    config["rope_parameters"] = {"rope_theta": 10000.0, **way}
    model = LlamaForCausalLM.from_pretrained(tiny.FOLDER / "untied", config=LlamaConfig(**config), dtype=torch.float32).double().eval()
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
    rows.append({"max_position_embeddings": config["max_position_embeddings"], "rope_parameters": config["rope_parameters"], "input_ids": ids,
                 "logits": [float(f"{x:.7g}") for x in logits.tolist()]})
oracle.write_rows(HERE / "logits.json", rows)
oracle.write_versions(HERE)
