#!/usr/bin/env python3
"""make.py: losses, gradients and metrics of TRL's GRPOTrainer._compute_loss, and advantages of _generate_and_score_completions.

losses.json has the numbers that go in, model.json the tiny Llama with the adapter of lora_sft/tiny, at a temperature of 0.8.

The trainer is not constructed: its methods run on an object that has the attributes that they read. The model's log-probabilities are
given, so that the gradient is that of each token's log-probability.
"""

import random
import sys
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import torch  # noqa: E402
from trl.trainer.grpo_trainer import GRPOTrainer  # noqa: E402

HERE = Path(__file__).resolve().parent
LOSSES = ["grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"]


class Accelerator:
    num_processes, process_index, sync_gradients, device = 1, 0, True, torch.device("cpu")
    gather = staticmethod(lambda x: x)
    reduce = staticmethod(lambda x, reduction=None: x)


def trainer(**options):
    t = object.__new__(GRPOTrainer)
    defaults = dict(loss_type="dapo", importance_sampling_level="token", epsilon=0.2, epsilon_high=0.2, delta=None, beta=0.0,
                    use_bias_correction_kl=True, accumulation=1, steps_per_generation=1, max_completion_length=8,
                    scale_rewards="group", num_generations=2)
    o = SimpleNamespace(**{**defaults, **options})
    t.accelerator, t.model = Accelerator(), torch.nn.Linear(1, 1)
    t.args = SimpleNamespace(delta=o.delta, use_bias_correction_kl=o.use_bias_correction_kl, steps_per_generation=o.steps_per_generation,
                             sapo_temperature_neg=1.05, sapo_temperature_pos=1.0, vespo_k_pos=2.0, vespo_lambda_pos=3.0,
                             vespo_k_neg=3.0, vespo_lambda_neg=2.0, gradient_accumulation_steps=1,
                             per_device_train_batch_size=1, gradient_checkpointing_kwargs=None, report_to=[])
    t.model.is_gradient_checkpointing = False
    t.loss_type, t.importance_sampling_level, t.beta = o.loss_type, o.importance_sampling_level, o.beta
    t.epsilon_low, t.epsilon_high, t.max_completion_length = o.epsilon, o.epsilon_high, o.max_completion_length
    t.current_gradient_accumulation_steps = o.accumulation
    t.top_entropy_quantile, t.off_policy_mask_threshold, t.aux_loss_enabled, t.use_vllm = 1.0, None, False, False
    t._entropy_bonus_enabled = False
    t._metrics = {"train": defaultdict(list), "eval": defaultdict(list)}
    t.num_generations, t.scale_rewards, t.num_iterations = o.num_generations, o.scale_rewards, 1
    t.multi_objective_aggregation, t.environment_factories, t.environments, t.tools = "sum_then_normalize", None, None, None
    t.pad_to_multiple_of, t.mask_truncated_completions = None, False
    t._is_vlm, t.ref_model, t.log_multimodal = False, None, False
    t._tokenizer = SimpleNamespace(pad_token_id=0)
    t._logs = {"prompt": [], "completion": [], "rewards": defaultdict(list), "advantages": [], "extra": defaultdict(list), "images": []}
    t._pending_extra_logs, t._pending_metrics = defaultdict(list), defaultdict(list)
    return t


def loss_case(rng, **options):
    lengths = [rng.randint(1, 6) for _ in range(3)]
    masked = [rng.random() < 0.4 for _ in lengths] if options.pop("mask", False) else [False] * 3
    masked[0] = False
    width = max(lengths)
    rows = {"old": [], "logprobs": [], "ref": []}
    for n in lengths:
        old = [-rng.expovariate(1.0) for _ in range(n)]
        rows["old"].append([round(o, 3) for o in old])
        rows["logprobs"].append([round(o + rng.gauss(0, 0.3), 3) for o in old])
        rows["ref"].append([round(o + rng.gauss(0, 0.3), 3) for o in old])
    advantages = [round(rng.gauss(0, 1), 3) for _ in lengths]
    pad = lambda values: torch.tensor([v + [0.0] * (width - len(v)) for v in values], dtype=torch.float64)
    mask = torch.tensor([[0 if m else 1] * n + [0] * (width - n) for n, m in zip(lengths, masked)])
    logprobs = pad(rows["logprobs"]).requires_grad_()
    t = trainer(**options)
    t._get_per_token_logps_and_entropies = lambda *a, **k: (logprobs, torch.zeros_like(logprobs), None)
    others = 10 if options.get("steps_per_generation", 1) > 1 else 0  # tokens of the generation batch that are not in this step
    tokens = int(mask.sum()) + others
    ids = torch.ones_like(mask)
    loss = t._compute_loss(t.model, {
        "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask, "num_items_in_batch": torch.tensor(float(tokens)),
        "advantages": torch.tensor(advantages, dtype=torch.float64), "old_per_token_logps": pad(rows["old"]), "ref_per_token_logps": pad(rows["ref"])})
    loss.backward()
    metrics = {k: v[0] for k, v in t._metrics["train"].items() if k != "entropy"}
    gradients = [[float(f"{x:.8g}") for x in g[:n].tolist()] for g, n in zip(logprobs.grad, lengths)]
    return {"options": options, "masked": masked, "advantages": advantages, **rows, "generation_tokens": tokens, "loss": loss.item(),
            "gradients": gradients, "metrics": metrics}


def advantage_case(rng, rewards, weights, num_generations, scale):
    t = trainer(scale_rewards=scale, num_generations=num_generations)
    count = len(rewards)
    t.reward_weights, t.reward_func_names = torch.tensor(weights), [f"f{k}" for k in range(len(weights))]
    t._generate = lambda prompts: ([[1]] * count, [[1]] * count, None, ["x"] * count, None, {}, None, [])
    nan = float("nan")
    t._calculate_rewards = lambda *a: torch.tensor([[nan if r is None else r for r in row] for row in rewards], dtype=torch.float64)
    output = t._generate_and_score_completions([{"prompt": "x"}] * count)
    m = t._metrics["train"]
    return {"rewards": rewards, "weights": weights, "num_generations": num_generations, "scale_rewards": scale,
            "advantages": output["advantages"].tolist(), "reward": m["reward"][0], "reward_std": m["reward_std"][0],
            "frac_reward_zero_std": m["frac_reward_zero_std"][0],
            "function_means": [m[f"rewards/f{k}/mean"][0] for k in range(len(weights))],
            "function_stds": [m[f"rewards/f{k}/std"][0] for k in range(len(weights))]}


def model_logprobs(model, prompts, completions, temperature, width):
    """Of every completion token, each sequence alone; padded with zeros."""
    logps, entropies = [], []
    for prompt, completion in zip(prompts, completions):
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0, len(prompt) - 1:-1].float() / temperature
        log_probs = torch.log_softmax(logits, dim=-1)
        fill = (0, width - len(completion))
        logps.append(torch.nn.functional.pad(log_probs.gather(1, torch.tensor(completion)[:, None])[:, 0], fill))
        entropies.append(torch.nn.functional.pad(-(log_probs.exp() * log_probs).sum(-1).detach(), fill))
    return torch.stack(logps), torch.stack(entropies)


def model_cases(rng):
    import tiny
    from peft import PeftModel
    model = PeftModel.from_pretrained(tiny.load(), HERE.parent / "lora_sft" / "tiny" / "initial_adapter", is_trainable=True)
    temperature = 0.8
    prompts = [[rng.randrange(320) for _ in range(rng.randint(1, 20))] for _ in range(4)]
    completions = [[rng.randrange(320) for _ in range(n)] for n in (7, 1, 12, 4)]
    width = max(map(len, completions))
    mask = torch.tensor([[1] * len(c) + [0] * (width - len(c)) for c in completions])
    advantages = [round(rng.gauss(0, 1), 3) for _ in prompts]
    with torch.no_grad():
        now, _ = model_logprobs(model, prompts, completions, temperature, width)
        with model.disable_adapter():
            ref, _ = model_logprobs(model, prompts, completions, temperature, width)
    old = [[round(float(x) + rng.gauss(0, 0.2), 3) for x in row[:len(c)]] for row, c in zip(now, completions)]
    pad = lambda values: torch.tensor([v + [0.0] * (width - len(v)) for v in values])
    ids = torch.ones_like(mask)
    expected = []
    for loss_type in LOSSES:
        for level in ["token", "sequence"]:
            options = dict(loss_type=loss_type, importance_sampling_level=level, beta=0.04, epsilon_high=5.0 if loss_type == "cispo" else 0.28,
                           max_completion_length=16)
            t = trainer(**options)
            t._get_per_token_logps_and_entropies = lambda *a, **k: (*model_logprobs(model, prompts, completions, temperature, width), None)
            model.zero_grad()
            loss = t._compute_loss(t.model, {
                "prompt_ids": ids, "prompt_mask": ids, "completion_ids": ids, "completion_mask": mask,
                "num_items_in_batch": mask.sum().float(), "advantages": torch.tensor(advantages), "old_per_token_logps": pad(old), "ref_per_token_logps": ref})
            loss.backward()
            gradients = {}
            for name, p in model.named_parameters():
                if p.grad is not None:
                    wave = torch.cos(torch.arange(p.numel(), dtype=torch.float64)).reshape(p.shape)
                    gradients[name.replace(".default", "")] = [p.grad.double().norm().item(), (p.grad.double() * wave).sum().item()]
            expected.append({"options": options, "loss": loss.item(), "metrics": {k: v[0] for k, v in t._metrics["train"].items()},
                             "gradients": {n: [float(f"{x:.7g}") for x in g] for n, g in gradients.items()}})
    return {"temperature": temperature, "prompts": prompts, "completions": completions, "advantages": advantages, "old": old, "cases": expected}


def main():
    rng = random.Random(7)
    cases = []
    for loss in LOSSES:
        high = 5.0 if loss == "cispo" else 0.28
        for level in ["token", "sequence"]:
            for beta, correction in [(0.0, True), (0.04, True), (0.04, False)]:
                cases.append(loss_case(rng, loss_type=loss, importance_sampling_level=level, epsilon_high=high, beta=beta,
                                       use_bias_correction_kl=correction, mask=beta == 0.0))
            cases.append(loss_case(rng, loss_type=loss, importance_sampling_level=level, accumulation=2, steps_per_generation=4))
        if loss not in ("cispo", "sapo", "vespo"):
            cases.append(loss_case(rng, loss_type=loss, delta=1.1, beta=0.1))
    oracle.write_rows(HERE / "losses.json", cases)
    rewards = []
    for scale in ["group", "batch", "none"]:
        for generations in [2, 4]:
            table = [[rng.choice([0.0, 1.0]), rng.gauss(0, 1)] for _ in range(8)]
            rewards.append(advantage_case(rng, table, [1.0, 0.5], generations, scale))
        holes = [[None if rng.random() < 0.4 else rng.gauss(0, 1) for _ in range(2)] for _ in range(8)]
        holes[3] = [None, None]
        rewards.append(advantage_case(rng, holes, [2.0, 0.25], 4, scale))
    rewards.append(advantage_case(rng, [[1.0], [1.0], [0.0], [1.0], [0.5], [0.5]], [1.0], 2, "group"))
    oracle.write_rows(HERE / "advantages.json", rewards)
    oracle.write_json(HERE / "model.json", model_cases(rng))
    oracle.write_versions(HERE)


torch.set_num_threads(1)
if __name__ == "__main__":
    main()
