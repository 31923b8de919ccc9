#!/usr/bin/env python3
"""make.py SmolLM2-135M-Instruct.Q4_1.gguf: what TRL's DPOTrainer makes of preference rows, and its losses, gradients and metrics.

losses.json: _compute_loss on an object that has the attributes that it reads, the model's log-probabilities being given, so that the
gradient is that of each completion's sum. tiny/: the trainer itself on tiny_llama/untied with a LoRA adapter. rows.json: its preparation.
"""

import json
import logging
import os
import random
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["TQDM_DISABLE"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import datasets  # noqa: E402
import oracle  # noqa: E402
import peft  # noqa: E402
import tiny  # noqa: E402
import torch  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402
from trl import DPOConfig, DPOTrainer  # noqa: E402

HERE = Path(__file__).resolve().parent
LOSSES = ["sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero", "apo_down",
          "discopop", "sft", "sigmoid_norm"]
WITH_DIVERGENCE = ["sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop"]
SMOOTHED = {"exo_pair": [0.001, 0.1], "robust": [0.0, 0.1], "aot": [0.0, 0.1], "aot_unpaired": [0.0, 0.1]}


def options_of_all():
    for loss in LOSSES:
        for smoothing in SMOOTHED.get(loss, [0.0]):
            yield {"loss_type": [loss], "label_smoothing": smoothing, "beta": 0.1}
        yield {"loss_type": [loss], "label_smoothing": SMOOTHED.get(loss, [0.0])[-1], "beta": 0.5}
    for loss in WITH_DIVERGENCE:
        for divergence in ["forward_kl", "js_divergence", "alpha_divergence"]:
            yield {"loss_type": [loss], "label_smoothing": SMOOTHED.get(loss, [0.0])[-1], "beta": 0.2, "f_divergence_type": divergence}
    yield {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0], "label_smoothing": 0.0, "beta": 0.1}
    yield {"loss_type": ["aot", "hinge"], "label_smoothing": 0.0, "beta": 0.1}
    yield {"loss_type": ["sigmoid"], "label_smoothing": 0.0, "beta": 0.1, "f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.0}


class Accelerator:
    device = torch.device("cpu")
    gather = staticmethod(lambda x: x)
    gather_for_metrics = staticmethod(lambda x: x)


def bare_trainer(options):
    t = object.__new__(DPOTrainer)
    t.accelerator, t.model, t._tp_size = Accelerator(), torch.nn.Linear(1, 1), 1
    t.args = SimpleNamespace(discopop_tau=0.05, gradient_checkpointing_kwargs=None)
    t.loss_types, t.loss_weights = options["loss_type"], options.get("loss_weights") or [1.0] * len(options["loss_type"])
    t.beta, t.label_smoothing = options["beta"], options["label_smoothing"]
    t.f_divergence_type, t.f_alpha_divergence_coef = options.get("f_divergence_type", "reverse_kl"), options.get("f_alpha_divergence_coef", 0.5)
    t.ld_alpha, t.use_weighting, t.aux_loss_enabled, t.precompute_ref_logps = None, False, False, True
    t._metrics, t._total_train_tokens = {"train": defaultdict(list), "eval": defaultdict(list)}, 0
    return t


def loss_case(rng, options):
    count, width = 4, 8
    dtype = torch.float32 if options.get("f_divergence_type") == "alpha_divergence" else torch.float64  # it knows no float64
    lengths = [rng.randint(1, width - 1) for _ in range(2 * count)]
    mask = torch.tensor([[0] + [1] * n + [0] * (width - 1 - n) for n in lengths])
    logps = torch.tensor([[-rng.expovariate(1.0) for _ in range(width - 1)] for _ in lengths], dtype=dtype) * mask[:, 1:]
    ref = [round(x, 3) for x in (logps.sum(1) + torch.tensor([rng.gauss(0, 2) for _ in lengths], dtype=dtype)).tolist()]
    logps.requires_grad_()
    zeros = torch.zeros_like(logps)
    t = bare_trainer(options)
    model = lambda **kwargs: SimpleNamespace(log_probs=logps * mask[:, 1:], entropy=zeros, mean_logits=zeros, is_top1=zeros.bool())
    loss = t._compute_loss(model, {"input_ids": torch.ones_like(mask), "attention_mask": torch.ones_like(mask), "completion_mask": mask,
                                   "ref_chosen_logps": torch.tensor(ref[:count], dtype=dtype),
                                   "ref_rejected_logps": torch.tensor(ref[count:], dtype=dtype)}, return_outputs=False)
    loss.backward()
    gradients = logps.grad[:, 0].tolist()  # a sum's gradient is that of each of its tokens
    sums = logps.detach().sum(1).tolist()
    half = lambda values: {"chosen": values[:count], "rejected": values[count:]}
    return {"options": options, "tokens": half(lengths), "logps": half(sums), "ref_logps": half(ref), "loss": loss.item(), "gradients": half(gradients)}


ROWS = [  # tokens of tiny_llama: prompt, chosen, rejected
    ([5, 17, 200, 31], [44, 45, 3, 80, 2], [44, 9, 2]),
    ([300, 12], [7, 7, 8, 2], [250, 251, 252, 253, 254, 2]),
    ([1, 2, 3, 4, 5, 6, 7, 8, 9], [100, 2], [101, 102, 2]),
]


def tiny_trainer(scratch, options):
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(oracle.HERE / "tokenizer" / "byte_level" / "tokenizer.json"), eos_token="<|im_end|>", pad_token="<|endoftext|>")
    dataset = datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    config = DPOConfig(output_dir=scratch, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **options)
    lora = peft.LoraConfig(r=1, lora_alpha=4, lora_dropout=0.0, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    return DPOTrainer(model=tiny.load(), args=config, train_dataset=dataset, processing_class=tokenizer, peft_config=lora)


def tiny_cases():
    folder = HERE / "tiny"
    folder.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(5)
    gradients, cases, state = {}, [], None
    examples = [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in ROWS]
    for options in [{"loss_type": [loss], "label_smoothing": SMOOTHED.get(loss, [0.0])[-1]} for loss in LOSSES] + [
            {"loss_type": ["sigmoid"], "f_divergence_type": "js_divergence"}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.7, 0.3]}]:
        with tempfile.TemporaryDirectory() as scratch:
            trainer = tiny_trainer(scratch, {"beta": 0.3, **options})
            if state is None:
                state = {n: 0.2 * torch.randn(p.shape, generator=generator) for n, p in trainer.model.named_parameters() if p.requires_grad}
            for n, p in trainer.model.named_parameters():
                if p.requires_grad:
                    p.data = state[n].clone()
            if not cases:
                trainer.model.save_pretrained(folder / "adapter")
            (folder / "adapter" / "README.md").unlink(missing_ok=True)
            trainer.model.train()
            loss = trainer._compute_loss(trainer.model, trainer.data_collator(examples), return_outputs=False)
            loss.backward()
            name = "+".join(options["loss_type"]) + ("." + options["f_divergence_type"] if "f_divergence_type" in options else "")
            for n, p in trainer.model.named_parameters():
                if p.requires_grad:
                    gradients[f"{name}/{n.replace('.default', '')}"] = p.grad.clone()
            cases.append({"name": name, "options": {"beta": 0.3, **options}, "loss": loss.item(), "metrics": {k: v[0] for k, v in trainer._metrics["train"].items()}})
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "tiny_llama/untied"
    (folder / "adapter" / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    oracle.write_rows(folder / "cases.json", [{"rows": [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in ROWS]}, *cases])
    save_file(gradients, folder / "gradients.safetensors")


U, A, S = ({"role": role, "content": None} for role in ("user", "assistant", "system"))
say = lambda role, text: {**role, "content": text}
STRINGS = [{"prompt": "Q: 1+1?\nA:", "chosen": " 2", "rejected": " 3, I think"}, {"prompt": "Say ", "chosen": "hi<|im_end|>", "rejected": "ho"},
           {"prompt": "Unicode: ", "chosen": "ünïcödé 😀", "rejected": "ünïcödé 😃"}]
IMPLICIT = [{"chosen": "Q: 1+1?\nA: 2", "rejected": "Q: 1+1?\nA: 3"}, {"chosen": "The sky is blue.", "rejected": "The sky is"}, {"chosen": "grüß dich", "rejected": "grüß Gott"},
            {"chosen": "ab ü", "rejected": "ab ö"}]
MESSAGES = [{"prompt": [say(S, "Be brief."), say(U, "1 + 1?")], "chosen": [say(A, "2")], "rejected": [say(A, "It is three, as everyone knows.")]},
            {"prompt": [say(U, "Hi")], "chosen": [say(A, "Hello!"), say(U, "How are you?"), say(A, "Well.")], "rejected": [say(A, "<no>")]}]
IMPLICIT_MESSAGES = [{"chosen": [say(U, "What color is the sky?"), say(A, "It is blue.")], "rejected": [say(U, "What color is the sky?"), say(A, "It is green.")]},
                     {"chosen": [say(U, "Hi"), say(A, "Yes?"), say(U, "Go on"), say(A, "Sure.")], "rejected": [say(U, "Hi"), say(A, "Yes?"), say(U, "Go on"), say(A, "No.")]}]
TOOLS = [{"type": "function", "function": {"name": "weather", "description": "Weather of a town", "parameters": {"type": "object", "properties": {"town": {"type": "string"}}}}}]
WITH_TOOLS = [{**row, "tools": json.dumps(TOOLS)} for row in IMPLICIT_MESSAGES]
ROW_CASES = [("strings", STRINGS, {}), ("strings_truncated", STRINGS, {"max_length": 10}), ("implicit", IMPLICIT, {}), ("messages", MESSAGES, {}),
             ("messages_truncated", MESSAGES, {"max_length": 34}), ("messages_keep_end", MESSAGES, {"max_length": 12, "truncation_mode": "keep_end"}),
             ("implicit_messages", IMPLICIT_MESSAGES, {}), ("tools", WITH_TOOLS, {})]


def row_cases():
    byte_level = PreTrainedTokenizerFast(tokenizer_file=str(oracle.HERE / "tokenizer" / "byte_level" / "tokenizer.json"), eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                         clean_up_tokenization_spaces=False)
    for tokenizer_name, tokenizer in {"byte_level": byte_level, "smollm2": oracle.smollm2_transformers_tokenizer(oracle.gguf_path())}.items():
        for name, rows, options in ROW_CASES:
            template = "think" if name == "tools" else "smollm2"
            tokenizer.chat_template = (oracle.HERE / "template" / f"{template}.jinja").read_text(encoding="utf-8")
            with tempfile.TemporaryDirectory() as scratch:
                config = DPOConfig(output_dir=scratch, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **options)
                lora = peft.LoraConfig(r=1, target_modules=["q_proj"], task_type="CAUSAL_LM")
                trainer = DPOTrainer(model=tiny.load(), args=config, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer, peft_config=lora)
                prepared = []
                for row in trainer.train_dataset:
                    batch = trainer.data_collator([row])
                    ids, masks, present = batch["input_ids"].tolist(), batch["completion_mask"].tolist(), batch["attention_mask"].sum(1).tolist()
                    prepared.append({side: {"input_ids": ids[i][:present[i]], "completion_mask": masks[i][:present[i]]} for i, side in enumerate(["chosen", "rejected"])})
            yield {"name": name, "tokenizer": tokenizer_name, "template": template, "options": options, "rows": rows, "prepared": prepared}


def main():
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    rng = random.Random(11)
    oracle.write_rows(HERE / "losses.json", [loss_case(rng, options) for options in options_of_all()])
    tiny_cases()
    oracle.write_rows(HERE / "rows.json", list(row_cases()))
    oracle.write_versions(HERE)


if __name__ == "__main__":
    main()
