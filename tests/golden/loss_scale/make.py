#!/usr/bin/env python3
"""The scale of torch's GradScaler over 9000 steps, some of whose gradients are not finite."""

import json
import random
from importlib.metadata import version
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
STEPS = 9000

rng = random.Random(15)
overflowed = sorted({0, 1, 2, 2003, 4004, *rng.sample(range(4100, 6900), 9)})  # one step after 2000 good ones, and before
parameter = torch.nn.Parameter(torch.zeros(4))
optimizer = torch.optim.SGD([parameter], lr=0.0)
scaler = torch.amp.GradScaler("cpu")
changes, skipped = [[0, scaler.get_scale()]], 0
for step in range(STEPS):
    parameter.grad = torch.full((4,), float("inf") if step in overflowed else 1.0)
    scaler.scale(torch.zeros(()))  # makes the scale's tensor
    scaler.unscale_(optimizer)
    skipped += scaler._found_inf_per_device(optimizer)[torch.device("cpu")].item() > 0
    scaler.step(optimizer)
    scaler.update()
    if scaler.get_scale() != changes[-1][1]:
        changes.append([step + 1, scaler.get_scale()])
state = scaler.state_dict()
(HERE / "schedule.json").write_text(json.dumps({"steps": STEPS, "overflowed": overflowed, "scale_from_step": changes, "skipped": skipped,
                                                "growth_tracker": state["_growth_tracker"]}) + "\n")
(HERE / "versions.txt").write_text(f"torch {version('torch')}\n")
