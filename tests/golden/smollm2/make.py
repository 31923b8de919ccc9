#!/usr/bin/env python3
"""make.py SmolLM2-135M-Instruct.Q4_1.gguf: what transformers answers on the file dequantised to float32."""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
import torch  # noqa: E402

HERE = Path(__file__).resolve().parent
NEW_TOKENS = 64

PROMPTS = [
    "What is the capital of France?", "Write a haiku about the sea.", "List five fruits.", "Explain gravity to a child in two sentences.",
    "Translate to Spanish: Good morning, my friend.", "What is 17 + 25?", "Write a Python function that reverses a string.", "Who wrote Romeo and Juliet?",
    "Give me three tips for better sleep.", "Summarize: The cat sat on the mat because it was warm.", "Name the planets of the solar system.",
    "What is the opposite of hot?", "Tell me a short story about a robot.", "How do plants make food?", "Write an email asking for a day off.",
    "What does HTTP stand for?", "Is a tomato a fruit? Answer yes or no, then say why.", "Erzähle mir etwas über Berlin.", "日本の首都はどこですか？",
]
WITH_SYSTEM = [{"role": "system", "content": "Extract JSON."}, {"role": "user", "content": "Table for 4, 12 May, Oslo, under Anna."}]

TEXTS = [
    "The quick brown fox jumps over the lazy dog.", "Water boils at 100 degrees Celsius at sea level.", "To be, or not to be, that is the question.",
    "In the beginning God created the heaven and the earth.", "Photosynthesis turns light, water and carbon dioxide into sugar and oxygen.",
    "def add(a, b):\n    return a + b\n", "for i in range(10):\n    print(i * i)\n", "SELECT name, age FROM users WHERE age > 30 ORDER BY name;", "#include <stdio.h>\nint main(void) { return 0; }",
    "{\"name\": \"Anna\", \"count\": 4, \"date\": null}", "The mitochondria is the powerhouse of the cell.", "She sells seashells by the seashore.",
    "I think, therefore I am.", "E = mc^2 relates energy and mass.", "The train leaves at 10:45 from platform 3.", "Bonjour, comment allez-vous aujourd'hui ?",
    "Der schnelle braune Fuchs springt über den faulen Hund.", "El veloz murciélago hindú comía feliz cardillo y kiwi.", "Съешь ещё этих мягких французских булок.", "今日はいい天気ですね。",
    "안녕하세요, 만나서 반갑습니다.", "مرحبا بالعالم", "😀 😃 😄 emoji are fun 🎉", "1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144", "3.14159265358979323846",
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "    indented\n        twice\n", "a\n\n\n\nb", "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi!<|im_end|>\n",
    "Once upon a time there was a little girl who lived in a village near the forest.", "The stock market fell sharply on Monday after the report.",
    "Dear Sir or Madam, I am writing to complain about my order.", "Preheat the oven to 180 degrees. Mix flour, sugar and eggs.", "The derivative of x^2 is 2x.",
    "Paris is the capital of France. Berlin is the capital of Germany. Rome is the capital of Italy.", "Q: What is 2+2?\nA: 4\nQ: What is 3+3?\nA: 6",
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit.", "http://www.example.com/index.html?page=2", "Call me Ishmael. Some years ago, never mind how long precisely.",
    "It was the best of times, it was the worst of times.", "Mr. and Mrs. Smith's dog didn't bark.", "COPYRIGHT NOTICE: ALL RIGHTS RESERVED.", "xqzjv wkpt bfgh mnrl",
    "Hi", "The", "The Pacific Ocean is the largest and deepest of the five oceanic divisions of the Earth, stretching from the Arctic in the north to the Southern Ocean in the south.",
    "A neural network is a function with many parameters that are adjusted, step by step, so that its outputs on a set of examples come closer to the desired ones.",
    "1. Wash your hands.\n2. Cut the onions.\n3. Heat the oil.\n4. Fry for five minutes.\n", "| a | b |\n|---|---|\n| 1 | 2 |\n", "Good night, and good luck.",
]


@torch.no_grad()
def greedy(model, ids):
    """Greedy decoding with the library's cache; no repetition penalty; goes on past the end-of-turn token."""
    tokens, margins, cache, step = [], [], None, torch.tensor([ids])
    for _ in range(NEW_TOKENS):
        out = model(input_ids=step, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        top = out.logits[0, -1].double().topk(2)
        tokens.append(top.indices[0].item())
        margins.append(round((top.values[0] - top.values[1]).item(), 5))
        step = top.indices[:1][None]
    return tokens, margins


@torch.no_grad()
def mean_nll(model, ids):
    logits = model(input_ids=torch.tensor([ids])).logits[0, :-1].double()
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids[1:])).item()


def main():
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    path = oracle.gguf_path()
    tokenizer, model = oracle.smollm2_transformers_tokenizer(path), oracle.smollm2_model(path)
    rows = []
    for messages in [[{"role": "user", "content": p}] for p in PROMPTS] + [WITH_SYSTEM]:
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        tokens, margins = greedy(model, ids)
        eos = tokens.index(tokenizer.eos_token_id) if tokenizer.eos_token_id in tokens else None
        rows.append({"messages": messages, "prompt_ids": ids, "tokens": tokens, "margins": margins, "first_eos": eos, "text": tokenizer.decode(tokens[:eos])})
    oracle.write_rows(HERE / "greedy.json", rows)
    losses = []
    for text in TEXTS:
        ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        if len(ids) < 2:  # a single token has nothing to predict: begin with the begin-of-sequence token
            ids = [tokenizer.bos_token_id, *ids]
        losses.append({"text": text, "ids": ids, "mean_nll": mean_nll(model, ids)})
    oracle.write_rows(HERE / "loss.json", losses)
    oracle.write_versions(HERE)


main()
