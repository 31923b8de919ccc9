#!/usr/bin/env python3
"""make_options.py: as make.py, of the options that came later: entropies and their gradients (options.json), rewards that are normalised one by one
(advantages_one_by_one.json), and a model's entropy bonus (entropy_model.json).

The quantiles fall between two tokens: where one is a token's own entropy, torch.quantile's float32 interpolation may come out an ulp above it,
and TRL then leaves that token out.
"""

import random
from pathlib import Path

import make
import oracle
import torch

HERE = Path(__file__).resolve().parent


def loss_case(rng, **options):
    mask_some = options.pop("mask", False)
    lengths = [rng.randint(1, 6) for _ in range(4)]
    masked = [mask_some and rng.random() < 0.4 for _ in lengths]
    masked[0] = False
    width = max(lengths)
    rows = {name: [] for name in ("old", "logprobs", "ref", "entropies")}
    for n in lengths:
        old = [-rng.expovariate(1.0) for _ in range(n)]
        rows["old"].append([round(o, 3) for o in old])
        rows["logprobs"].append([round(o + rng.gauss(0, 0.3), 3) for o in old])
        rows["ref"].append([round(o + rng.gauss(0, 0.3), 3) for o in old])
        rows["entropies"].append([round(rng.expovariate(0.5) * 64) / 64 for _ in range(n)])  # exact in float32, as a model has them
    advantages = [round(rng.gauss(0, 1), 3) for _ in lengths]
    pad = lambda values: torch.tensor([v + [0.0] * (width - len(v)) for v in values], dtype=torch.float64)
    mask = torch.tensor([[0 if m else 1] * n + [0] * (width - n) for n, m in zip(lengths, masked)])
    logprobs, entropies = pad(rows["logprobs"]).requires_grad_(), pad(rows["entropies"]).requires_grad_()
    t = make.trainer(**{k: v for k, v in options.items() if k not in ("entropy_coef", "top_entropy_quantile", "off_policy_mask_threshold")})
    t.top_entropy_quantile, t.off_policy_mask_threshold = options.get("top_entropy_quantile", 1.0), options.get("off_policy_mask_threshold")
    t.entropy_coef, t.use_adaptive_entropy = options.get("entropy_coef", 0.0), False
    t._entropy_bonus_enabled = t.entropy_coef != 0
    t.accelerator.pad_across_processes = lambda x, dim, pad_index: x
    t._get_per_token_logps_and_entropies = lambda *a, **k: (logprobs, entropies, None)
    tokens, ids = int(mask.sum()), torch.ones_like(mask)
    loss = t._compute_loss(t.model, {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask, "num_items_in_batch": torch.tensor(float(tokens)),
        "advantages": torch.tensor(advantages, dtype=torch.float64), "old_per_token_logps": pad(rows["old"]), "ref_per_token_logps": pad(rows["ref"])})
    loss.backward()
    metrics = {k: v[0] for k, v in t._metrics["train"].items() if k != "entropy"}
    cut = lambda g: [[float(f"{x:.8g}") for x in row[:n].tolist()] for row, n in zip(torch.zeros_like(pad(rows["old"])) if g is None else g, lengths)]
    return {"options": options, "masked": masked, "advantages": advantages, **rows, "generation_tokens": tokens, "loss": loss.item(),
            "gradients": cut(logprobs.grad), "entropy_gradients": cut(entropies.grad), "metrics": metrics}


def entropy_model(rng):
    """−mean entropy of some completions of the tiny Llama at a temperature, and its gradients by the adapter of lora_sft/tiny."""
    import tiny
    from peft import PeftModel
    model = PeftModel.from_pretrained(tiny.load(), oracle.HERE / "lora_sft" / "tiny" / "initial_adapter", is_trainable=True)
    temperature, coefficient = 0.8, 0.03
    prompts = [[rng.randrange(320) for _ in range(rng.randint(1, 20))] for _ in range(3)]
    completions = [[rng.randrange(320) for _ in range(n)] for n in (7, 1, 12)]
    entropies = []
    for prompt, completion in zip(prompts, completions):
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1:-1].float() / temperature
        log_probs = torch.log_softmax(logits, dim=-1)
        entropies.append(-(log_probs.exp() * log_probs).sum(-1))
    loss = -coefficient * torch.cat(entropies).mean()
    loss.backward()
    gradients = {}
    for name, p in model.named_parameters():
        if p.grad is not None:
            wave = torch.cos(torch.arange(p.numel(), dtype=torch.float64)).reshape(p.shape)
            gradients[name.replace(".default", "")] = [float(f"{x:.7g}") for x in (p.grad.double().norm().item(), (p.grad.double() * wave).sum().item())]
    return {"temperature": temperature, "entropy_coef": coefficient, "prompts": prompts, "completions": completions, "loss": loss.item(), "gradients": gradients}


def advantage_case(rng, rewards, weights, generations):
    original = make.trainer
    def trainer(**options):
        t = original(**options)
        t.multi_objective_aggregation, t.reward_funcs = "normalize_then_sum", weights
        return t
    make.trainer = trainer
    case = make.advantage_case(rng, rewards, weights, generations, "group")
    make.trainer = original
    return case


def main():
    rng = random.Random(8)
    cases = []
    for loss in make.LOSSES:
        high = 5.0 if loss == "cispo" else 0.28
        for level in ["token", "sequence"]:
            shared = dict(loss_type=loss, importance_sampling_level=level, epsilon_high=high)
            cases.append(loss_case(rng, **shared, entropy_coef=0.05, mask=True))
            cases.append(loss_case(rng, **shared, top_entropy_quantile=0.23, beta=0.04))
            cases.append(loss_case(rng, **shared, off_policy_mask_threshold=0.05, beta=0.04))
        cases.append(loss_case(rng, loss_type=loss, epsilon_high=high, entropy_coef=-0.02, top_entropy_quantile=0.47, off_policy_mask_threshold=0.0, mask=True))
    oracle.write_rows(HERE / "options.json", cases)
    rewards = []
    for generations in [2, 4]:
        rewards.append(advantage_case(rng, [[rng.choice([0.0, 1.0]), rng.gauss(0, 5)] for _ in range(8)], [1.0, 0.5], generations))
    holes = [[None if rng.random() < 0.3 else rng.gauss(0, 1) for _ in range(2)] for _ in range(8)]
    holes[3] = [None, None]
    rewards.append(advantage_case(rng, holes, [2.0, 0.25], 4))
    oracle.write_rows(HERE / "advantages_one_by_one.json", rewards)
    oracle.write_json(HERE / "entropy_model.json", entropy_model(rng))


main()
