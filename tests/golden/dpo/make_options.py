#!/usr/bin/env python3
"""make_options.py SmolLM2-135M-Instruct.Q4_1.gguf: as make.py, of the options that came later.

options/: ld_alpha and use_weighting on the tiny model with the adapter of tiny/ (cases.json, gradients.safetensors). synced.json: steps of the whole
model with a reference that follows it (sync_ref_model).
"""

import tempfile
from pathlib import Path

import make
import oracle
import torch
from safetensors.torch import load_file, save_file
from trl import DPOConfig, DPOTrainer
from trl.trainer.callbacks import SyncRefModelCallback

HERE = Path(__file__).resolve().parent
EXAMPLES = [{"prompt_ids": p, "chosen_ids": c, "rejected_ids": r} for p, c, r in make.ROWS]
OPTIONS = [
    {"loss_type": ["sigmoid"], "ld_alpha": 0.3}, {"loss_type": ["ipo"], "ld_alpha": 0.0}, {"loss_type": ["sigmoid", "sft"], "loss_weights": [0.7, 0.3], "ld_alpha": 0.5},
    {"loss_type": ["aot"], "ld_alpha": 0.5}, {"loss_type": ["sigmoid"], "use_weighting": True}, {"loss_type": ["sigmoid_norm"], "use_weighting": True},
    {"loss_type": ["nca_pair", "bco_pair"], "loss_weights": [1.0, 0.5], "use_weighting": True}, {"loss_type": ["sigmoid"], "ld_alpha": 0.25, "use_weighting": True},
]


def option_cases():
    folder = HERE / "options"
    folder.mkdir(exist_ok=True)
    adapter = load_file(HERE / "tiny" / "adapter" / "adapter_model.safetensors")
    gradients, cases = {}, []
    for options in OPTIONS:
        with tempfile.TemporaryDirectory() as scratch:
            trainer = make.tiny_trainer(scratch, {"beta": 0.3, **options})
            for n, p in trainer.model.named_parameters():
                if p.requires_grad:
                    p.data = adapter[n.replace(".default", "")].clone()
            trainer.model.train()
            loss = trainer._compute_loss(trainer.model, trainer.data_collator(EXAMPLES), return_outputs=False)
            loss.backward()
            name = str(len(cases))
            for n, p in trainer.model.named_parameters():
                if p.requires_grad:
                    gradients[f"{name}/{n.replace('.default', '')}"] = p.grad.clone()
            cases.append({"name": name, "options": {"beta": 0.3, **options}, "loss": loss.item(), "metrics": {k: v[0] for k, v in trainer._metrics["train"].items()}})
    oracle.write_rows(folder / "cases.json", [{"rows": EXAMPLES}, *cases])
    save_file(gradients, folder / "gradients.safetensors")


def synced():
    options = {"beta": 0.3, "sync_ref_model": True, "ref_model_mixup_alpha": 0.4, "ref_model_sync_steps": 2}
    with tempfile.TemporaryDirectory() as scratch:
        tokenizer = make.PreTrainedTokenizerFast(tokenizer_file=str(oracle.HERE / "tokenizer" / "byte_level" / "tokenizer.json"), eos_token="<|im_end|>", pad_token="<|endoftext|>")
        dataset = make.datasets.Dataset.from_list([{"prompt": "a", "chosen": "b", "rejected": "c"}])
        config = DPOConfig(output_dir=scratch, report_to=[], use_cpu=True, bf16=False, gradient_checkpointing=False, **options)
        trainer = DPOTrainer(model=make.tiny.load(), ref_model=make.tiny.load(), args=config, train_dataset=dataset, processing_class=tokenizer)
        optimizer = torch.optim.AdamW(trainer.model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
        trainer.model.train()
        steps = []
        for step in range(1, 8):
            loss = trainer._compute_loss(trainer.model, trainer.data_collator(EXAMPLES), return_outputs=False)
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0).item()
            optimizer.step()
            optimizer.zero_grad()
            steps.append({"loss": loss.item(), "grad_norm": norm, "margin": trainer._metrics["train"]["rewards/margins"][-1]})
            if step % config.ref_model_sync_steps == 0:
                SyncRefModelCallback._sync_target_model(trainer.model, trainer.ref_model, config.ref_model_mixup_alpha)
    oracle.write_json(HERE / "synced.json", {"options": {**options, "learning_rate": 1e-3}, "rows": EXAMPLES, "steps": steps})


option_cases()
synced()
