"""Holds lathe-model tokenize to llama.cpp's own ids: real vocabularies, 10,000 lines in 34 scripts.

usage: check_gguf_vocabularies.py LATHE_MODEL LLAMA_TOKENIZE FOLDER [NAME …]
FOLDER has llama.cpp's ggml-vocab-NAME.gguf (models/ of its source). With llama.cpp 0.5.0-dev: gpt-2, llama-bpe,
llama-spm, phi-3, deepseek-coder, starcoder, refact, baichuan and qwen2 have the same ids throughout. The text is in
NFC, into which Qwen2's own tokenizer brings it (llama.cpp does not), and has no backslash, which llama-tokenize reads
as an escape.
"""
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import unicodedata

NAMES = ["gpt-2", "llama-bpe", "llama-spm", "phi-3", "deepseek-coder", "starcoder", "refact", "baichuan", "qwen2"]
LATIN = (0x61, 0x7A)
SCRIPTS = [LATIN, (0xC0, 0x17F), (0x391, 0x3C9), (0x410, 0x44F), (0x561, 0x586), (0x5D0, 0x5EA), (0x621, 0x64A),
           (0x710, 0x72C), (0x780, 0x7A5), (0x905, 0x94D), (0x985, 0x9CD), (0xA05, 0xA4D), (0xA85, 0xACD),
           (0xB05, 0xB4D), (0xB85, 0xBCD), (0xC05, 0xC4D), (0xC85, 0xCCD), (0xD05, 0xD4D), (0xD85, 0xDCA),
           (0xE01, 0xE4E), (0xE81, 0xECD), (0xF40, 0xF84), (0x1000, 0x1039), (0x10D0, 0x10FA), (0xAC00, 0xD7A3),
           (0x1200, 0x135A), (0x13A0, 0x13F4), (0x1780, 0x17D2), (0x1820, 0x1877), (0x3041, 0x3096), (0x30A1, 0x30FA),
           (0x4E00, 0x9FA5), (0x10330, 0x1034A), (0x1D400, 0x1D7FF)]
EMOJI = ["😀", "👩‍👩‍👧", "🇩🇪", "👍🏽", "❤️", "🧑‍💻", "✈️", "🏳️‍🌈"]
BLANKS = [" ", "  ", "   ", "\t", "\u00a0", "\u3000", "\u2003", " \t "]
CODE = ["def f(x):\n    return x**2", "for (int i = 0; i < n; ++i) {", "}\n\n\n\treturn;", "I'm you're we'll DON'T",
        '{"a": [1, 2.5e-3, null]}', "https://example.com/a?b=c&d=%20", "x+=1;//ok", '<div class="a">&amp;</div>',
        "1234567 89 0x7fff 3.14159", "\r\n", "\n \n", "#!/bin/sh\n", "a_b_c camelCase PascalCase SCREAMING_CASE"]
MARKS = ".,;:!?-–—…()[]{}\"'`~@#$%^&*+=/|<>«»„“”¿¡"
CONTROLS = ["\x01", "\x7f", "\u200b", "\u200d", "\ufeff", "\u2028", "\ufffd", "\u0301"]


def word(r: random.Random) -> str:
    kind = r.random()
    if kind < 0.80:
        first, last = LATIN if kind < 0.45 else r.choice(SCRIPTS)
        letters = "".join(chr(r.randint(first, last)) for _ in range(r.randint(1, 9)))
        return letters.capitalize() if r.random() < 0.1 else letters
    if kind < 0.86:
        return r.choice(EMOJI)
    if kind < 0.90:
        return r.choice(CODE)
    if kind < 0.94:
        return str(r.randint(0, 10 ** r.randint(1, 12)))
    return r.choice(MARKS) * r.randint(1, 4) if kind < 0.97 else r.choice(CONTROLS)


def blank(r: random.Random) -> str:
    return r.choice(BLANKS) if r.random() < 0.15 else " " if r.random() < 0.9 else ""


def text_of(seed: int) -> str:
    r = random.Random(seed)
    lines = ["".join(word(r) + blank(r) for _ in range(r.randint(0, 12))) for _ in range(10000)]
    return unicodedata.normalize("NFC", "\n".join(lines))


def main() -> None:
    program, peer, folder, names = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]), sys.argv[4:] or NAMES
    failed = False
    with tempfile.NamedTemporaryFile("w", newline="", encoding="utf-8") as text:
        text.write(text_of(1))
        text.flush()
        for name in names:
            vocabulary = folder / f"ggml-vocab-{name}.gguf"
            ours = subprocess.run([program, "tokenize", vocabulary, "--file", text.name, "--ids"], check=True,
                                  capture_output=True, text=True).stdout.split()
            theirs = subprocess.run([peer, "-m", vocabulary, "-f", text.name, "--ids", "--no-bos",
                                     "--no-parse-special", "--log-disable"], check=True, capture_output=True, text=True)
            expected = json.loads(theirs.stdout[theirs.stdout.index("["):])
            ours = [int(token) for token in ours]
            first = next((i for i, (a, b) in enumerate(zip(ours, expected)) if a != b), min(len(ours), len(expected)))
            failed = failed or ours != expected
            print(f"{name}: {len(expected)} tokens, " + ("the same" if ours == expected else
                  f"token {first} differs: {ours[first:first + 5]} for {expected[first:first + 5]}"))
    sys.exit(failed)


if __name__ == "__main__":
    main()
