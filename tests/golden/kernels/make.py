#!/usr/bin/env python3
"""Formulas in float64: optimiser, rope, gated activations, attention, cross entropy, clipping, schedules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import LlamaConfig, get_scheduler  # noqa: E402
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS  # noqa: E402

HERE = Path(__file__).resolve().parent
F = torch.nn.functional


def leaf(*shape, scale=1.0):
    return (scale * torch.randn(*shape, dtype=torch.float64)).requires_grad_()


def detached(tensors):
    return {k: v.detach().contiguous() for k, v in tensors.items()}


def adamw():
    out = {}
    for name, weight_decay in (("plain", 0.0), ("decay", 0.1)):
        p = leaf(7, 3)
        optimizer = torch.optim.AdamW([p], lr=1e-2, betas=(0.9, 0.999), eps=1e-8, weight_decay=weight_decay)
        out[f"{name}.param.0"] = p.detach().clone()
        for step in range(1, 6):
            p.grad = torch.randn_like(p) * 10.0 ** (step - 3)
            out[f"{name}.grad.{step}"] = p.grad.clone()
            optimizer.step()
            state = optimizer.state[p]
            out |= {f"{name}.param.{step}": p.detach().clone(), f"{name}.exp_avg.{step}": state["exp_avg"].clone(), f"{name}.exp_avg_sq.{step}": state["exp_avg_sq"].clone()}
    return out


def rope():
    """Half-split: y[:h] = x[:h]·cos − x[h:]·sin, y[h:] = x[h:]·cos + x[:h]·sin, angle = position·inv_freq. The angle is computed in double here."""
    out = {"positions": torch.tensor([0, 1, 2, 7, 63, 500, 8191])}
    kinds = {"default": {"rope_type": "default", "rope_theta": 1e5},
             "llama3": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
             "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}}
    for name, parameters in kinds.items():
        config = LlamaConfig(hidden_size=128, num_attention_heads=2, head_dim=64, max_position_embeddings=16384, rope_parameters=parameters)
        if name == "default":
            inv_freq = 1.0 / parameters["rope_theta"] ** (torch.arange(0, 64, 2, dtype=torch.float64) / 64)
        else:
            inv_freq = ROPE_INIT_FUNCTIONS[name](config, "cpu")[0].double()
        x = leaf(7, 2, 64)
        angle = (out["positions"].double()[:, None] * inv_freq)[:, None, :]
        first, second = x[..., :32], x[..., 32:]
        y = torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)
        dy = torch.randn_like(y)
        y.backward(dy)
        out |= {f"{name}.inv_freq": inv_freq, f"{name}.x": x, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dx": x.grad}
    return detached(out)


def gated():
    out = {}
    for name, act in (("swiglu", F.silu), ("geglu_tanh", lambda t: F.gelu(t, approximate="tanh")), ("geglu_erf", F.gelu)):
        gate, up = leaf(6, 9, scale=3), leaf(6, 9)
        y = act(gate) * up
        dy = torch.randn_like(y)
        y.backward(dy)
        out |= {f"{name}.gate": gate, f"{name}.up": up, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dgate": gate.grad, f"{name}.dup": up.grad}
    gate, up, name = leaf(6, 9, scale=6), leaf(6, 9, scale=6), "clamped_swiglu"  # transformers' GptOssExperts
    clamped = gate.clamp(max=7.0)
    y = (up.clamp(min=-7.0, max=7.0) + 1) * (clamped * torch.sigmoid(clamped * 1.702))
    dy = torch.randn_like(y)
    y.backward(dy)
    out |= {f"{name}.gate": gate, f"{name}.up": up, f"{name}.y": y, f"{name}.dy": dy, f"{name}.dgate": gate.grad, f"{name}.dup": up.grad}
    return detached(out)


def rms_norm():
    x, w = leaf(5, 24), leaf(24)
    y = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * w
    dy = torch.randn_like(y)
    y.backward(dy)
    return detached({"x": x, "weight": w, "y": y, "dy": dy, "dx": x.grad, "dweight": w.grad})


def attention():
    """Packed sequences; q [tokens, 4, 16], k and v [tokens, 2, 16]; causal inside each sequence, scale 1/√16; lse = log-sum-exp of the scaled scores."""
    cu_seqlens = [0, 1, 14, 40]
    out = {"cu_seqlens": torch.tensor(cu_seqlens, dtype=torch.int32)}
    for name, window, soft_cap in (("causal", None, None), ("window8", 8, None), ("soft_cap20", None, 20.0)):
        q, k, v = leaf(40, 4, 16), leaf(40, 2, 16), leaf(40, 2, 16)
        outs, lses = [], []
        for begin, end in zip(cu_seqlens, cu_seqlens[1:]):
            n = end - begin
            qs, ks, vs = (t[begin:end].transpose(0, 1) for t in (q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)))
            scores = qs @ ks.transpose(1, 2) / 4.0
            if soft_cap:
                scores = soft_cap * torch.tanh(scores / soft_cap)
            i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
            scores = scores.masked_fill((j > i) | (j <= i - (window or n)), float("-inf"))
            lses.append(torch.logsumexp(scores, -1).T)
            outs.append((scores.softmax(-1) @ vs).transpose(0, 1))
        y, lse = torch.cat(outs), torch.cat(lses)
        dy = torch.randn_like(y)
        y.backward(dy)
        out |= {f"{name}.q": q, f"{name}.k": k, f"{name}.v": v, f"{name}.out": y, f"{name}.lse": lse, f"{name}.dout": dy, f"{name}.dq": q.grad, f"{name}.dk": k.grad, f"{name}.dv": v.grad}
    return detached(out)


def linear_cross_entropy():
    """hidden [11, 8] · weightᵀ [50, 8] → logits; loss = mean over the labels that are not -100 (already shifted)."""
    hidden, weight = leaf(11, 8), leaf(50, 8)
    labels = torch.randint(0, 50, (11,))
    labels[[0, 4, 10]] = -100
    logits = hidden @ weight.T
    loss = F.cross_entropy(logits, labels, ignore_index=-100)
    loss.backward()
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return detached({"hidden": hidden, "weight": weight, "labels": labels, "logits": logits, "loss": loss.reshape(1), "dhidden": hidden.grad, "dweight": weight.grad,
                     "logprobs": logprobs.gather(1, labels.clamp(min=0)[:, None])[:, 0], "entropy": entropy})


def clip_grad_norm():
    out = {}
    for name, max_norm, scale in (("clipped", 1.0, 1.0), ("kept", 100.0, 1.0), ("tiny", 1.0, 1e-9)):
        ps = [leaf(4, 5), leaf(3), leaf(2, 2, 2)]
        for i, p in enumerate(ps):
            p.grad = scale * torch.randn_like(p)
            out[f"{name}.grad.{i}"] = p.grad.clone()
        out[f"{name}.norm"] = torch.nn.utils.clip_grad_norm_(ps, max_norm).reshape(1)
        out |= {f"{name}.after.{i}": p.grad.clone() for i, p in enumerate(ps)}
    return detached(out)


def schedules():
    rows = []
    for name in ("linear", "cosine", "constant", "constant_with_warmup"):
        for warmup in (0, 1, 5):
            optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
            schedule = get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=30)
            rates = []
            for _ in range(30):
                rates.append(schedule.get_last_lr()[0])
                optimizer.step()
                schedule.step()
            rows.append({"lr_scheduler_type": name, "warmup_steps": warmup, "max_steps": 30, "learning_rate": rates})
    return rows


def main():
    torch.set_num_threads(1)
    for seed, make in enumerate((adamw, rope, gated, rms_norm, attention, linear_cross_entropy, clip_grad_norm)):
        torch.manual_seed(seed)
        save_file(make(), HERE / f"{make.__name__}.safetensors")
    oracle.write_rows(HERE / "schedules.json", schedules())
    oracle.write_versions(HERE)


main()
