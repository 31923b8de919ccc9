#!/usr/bin/env python3
"""make.py SmolLM2-135M-Instruct.Q4_1.gguf: what TRL's SFTTrainer makes of each shape of row (its own preparation, not a copy of it)."""

import logging
import os
import random
import sys
import tempfile
from pathlib import Path

os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import datasets  # noqa: E402
import oracle  # noqa: E402
import tiny  # noqa: E402
from transformers import PreTrainedTokenizerFast  # noqa: E402
from trl import SFTConfig, SFTTrainer  # noqa: E402

HERE = Path(__file__).resolve().parent
TEMPLATES = {name: (oracle.HERE / "template" / f"{name}.jinja").read_text(encoding="utf-8") for name in ("smollm2", "chatml_generation")}

U, A, S = (lambda role: lambda text: {"role": role, "content": text})("user"), (lambda t: {"role": "assistant", "content": t}), (lambda t: {"role": "system", "content": t})
TEXT = [{"text": "Hello there."}, {"text": "Ends already.<|im_end|>"}, {"text": "x"}, {"text": "A longer line of text, with numbers 123 and ünïcödé 😀."}]
MESSAGES = [{"messages": [U("Hi"), A("Hello!")]}, {"messages": [S("Be brief."), U("1 + 1?"), A("2"), U("and 3?"), A("5")]}, {"messages": [U("Only a question"), A("ok")]}]
PROMPT_STRINGS = [{"prompt": "Q: 1+1?\nA:", "completion": " 2"}, {"prompt": "Say ", "completion": "hi<|im_end|>"}, {"prompt": "", "completion": "alone"}]
PROMPT_MESSAGES = [{"prompt": [S("Extract JSON."), U("Table for 4, 12 May, Oslo, under Anna.")], "completion": [A('{"type":"reservation","name":"Anna","count":4}')]},
                   {"prompt": [U("Hi")], "completion": [A("Hello!")]}]
CONVERSATIONS = [{"conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello!"}]}]
IDS = [{"input_ids": [5, 6, 7, 8, 9]}, {"input_ids": [10, 11]}]
IDS_MASK = [{"input_ids": [5, 6, 7, 8, 9], "completion_mask": [0, 0, 1, 1, 1]}, {"input_ids": [10, 11, 12], "completion_mask": [0, 1, 1]}]
IDS_LABELS = [{"input_ids": [5, 6, 7, 8, 9], "labels": [-100, -100, 7, -100, 9]}]
IDS_ASSISTANT = [{"input_ids": [5, 6, 7, 8, 9], "assistant_masks": [0, 1, 1, 0, 1]}]
PACK = [{"input_ids": [1, 2, 3, 4, 5]}, {"input_ids": [6, 7]}, {"input_ids": [8, 9, 10, 11]}, {"input_ids": [12]}]


def many(seed):
    rng = random.Random(seed)
    rows = [[rng.randrange(1, 500) for _ in range(rng.randint(1, 40))] for _ in range(30)]
    return [{"input_ids": r, "completion_mask": [int(i >= len(r) // 3) for i in range(len(r))]} for r in rows]


CASES = [  # name, rows, TRL options
    ("text", TEXT, {}), ("text_truncated", TEXT, {"max_length": 9}), ("text_field", [{"body": "Other field."}], {"dataset_text_field": "body"}),
    ("messages", MESSAGES, {}), ("messages_assistant_only", MESSAGES, {"assistant_only_loss": True}),
    ("messages_assistant_only_truncated", MESSAGES, {"assistant_only_loss": True, "max_length": 30}),
    ("prompt_completion_strings", PROMPT_STRINGS, {}), ("prompt_completion_strings_all", PROMPT_STRINGS, {"completion_only_loss": False}),
    ("prompt_completion_messages", PROMPT_MESSAGES, {}), ("prompt_completion_messages_all", PROMPT_MESSAGES, {"completion_only_loss": False}),
    ("prompt_completion_messages_assistant_only", PROMPT_MESSAGES, {"assistant_only_loss": True}),
    ("prompt_completion_messages_truncated", PROMPT_MESSAGES, {"max_length": 40}), ("prompt_completion_messages_keep_end", PROMPT_MESSAGES, {"max_length": 12, "truncation_mode": "keep_end"}),
    ("conversations", CONVERSATIONS, {}), ("input_ids", IDS, {}), ("input_ids_completion_mask", IDS_MASK, {}), ("input_ids_labels", IDS_LABELS, {}),
    ("input_ids_assistant_masks", IDS_ASSISTANT, {}), ("input_ids_completion_mask_on", IDS_MASK, {"completion_only_loss": True}),
    ("drop_fully_masked", IDS_MASK, {"max_length": 2, "completion_only_loss": True}),
    *((f"pack_{strategy}", PACK, {"packing": True, "packing_strategy": strategy, "max_length": 4}) for strategy in ("bfd", "bfd_split", "wrapped")),
    *((f"pack_many_{strategy}", many(3), {"packing": True, "packing_strategy": strategy, "max_length": 64, "completion_only_loss": True}) for strategy in ("bfd", "bfd_split", "wrapped")),
    *((f"pack_many_short_{strategy}", many(4), {"packing": True, "packing_strategy": strategy, "max_length": 16}) for strategy in ("bfd", "bfd_split", "wrapped")),
    ("pack_messages", MESSAGES * 3, {"packing": True, "packing_strategy": "bfd", "max_length": 128}),
]


def tokenizers(path):
    byte_level = PreTrainedTokenizerFast(tokenizer_file=str(oracle.HERE / "tokenizer" / "byte_level" / "tokenizer.json"), eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                         clean_up_tokenization_spaces=False)
    return {"byte_level": byte_level, "smollm2": oracle.smollm2_transformers_tokenizer(path)}


def prepare(tokenizer, rows, options):
    tokenizer.chat_template = TEMPLATES["chatml_generation" if options.get("assistant_only_loss") else "smollm2"]
    with tempfile.TemporaryDirectory() as scratch:
        config = SFTConfig(output_dir=scratch, shuffle_dataset=False, report_to=[], use_cpu=True, bf16=False, **{"max_length": 1024, **options})
        trainer = SFTTrainer(model=tiny.load(), args=config, train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer)
        columns = [c for c in ("input_ids", "labels", "seq_lengths") if c in trainer.train_dataset.column_names]
        return [{c: row[c] for c in columns} for row in trainer.train_dataset]


def main():
    logging.disable(logging.WARNING)
    datasets.disable_progress_bars()
    out = []
    for tokenizer_name, tokenizer in tokenizers(oracle.gguf_path()).items():
        for name, rows, options in CASES:
            if tokenizer_name == "smollm2" and "input_ids" in rows[0]:
                continue  # nothing to tokenise
            case = {"name": name, "tokenizer": tokenizer_name, "template": "chatml_generation" if options.get("assistant_only_loss") else "smollm2", "options": options, "rows": rows}
            try:
                out.append({**case, "prepared": prepare(tokenizer, rows, options)})
            except Exception as error:
                out.append({**case, "error": f"{type(error).__name__}: {error}"})
    oracle.write_rows(HERE / "cases.json", out)
    oracle.write_versions(HERE)


main()
