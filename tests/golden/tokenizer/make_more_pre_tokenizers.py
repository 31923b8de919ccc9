#!/usr/bin/env python3
"""make_more_pre_tokenizers.py: the words that more of GGUF's pre-tokenisers stand for, as the tokenizers library cuts them (gguf_more_pre_tokenizers.json).

The patterns are those of the models' tokenizer.json as llama.cpp quotes them (src/llama-vocab.cpp of llama-cpp-python 0.3.36).
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
import make_models as models  # noqa: E402
import oracle  # noqa: E402
from tokenizers import pre_tokenizers  # noqa: E402

make, splits, GPT2, LLAMA3, DIGITS, C = models.make, models.splits, models.GPT2, models.LLAMA3, models.DIGITS, models.CONTRACTIONS

GPT4O = (models.HEAD + models.CAPITAL + "*" + models.SMALL + "+" + C + "?|" + models.HEAD + models.CAPITAL + "+" + models.SMALL + "*" + C + "?|" + r"\p{N}{1,3}" + models.SLASHES)
V3_WORDS = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+"""
CASED = ("A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c"
         "\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b"
         "\u1d6b-\u1d77\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc"
         "\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124"
         "\u2126\u2128\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4\u2ceb-\u2cee\u2cf2\u2cf3\ua640-"
         "\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f"
         "\U000104b0-\U000104d3\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df\U0001e900-\U0001e943")
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
NAMES = {
    "qwen35": splits(C + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "ufakzeka": splits(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "seed-coder": splits(C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"),
    "bailingmoe": splits(r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"),
    "exaone-moe": splits(C + r"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+"),
    "jais-2": splits(C + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)"
                     r"|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}"),
    "minicpm5": splits(r"\p{N}{1,3}", LLAMA3.replace("{1,3}", "+")),
    "tiny_aya": splits(r"\d{1,3}(?=(?:\d{3})*\b)", GPT4O),
    "youtu": splits("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+", GPT4O.replace("{1,3}", "")),
    "deepseek-llm": [*splits(r"[\r\n]", r"\s?[" + CASED + "]+", "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+", r"\s+$", "[一-龥ࠀ-一가-퟿]+"), DIGITS],
    "spark2_5": splits(r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", V3_WORDS + r"|[\r\n]|\s+(?!\S)|\s+", r"\p{N}"),
    "superbpe": splits(r"\p{N}+", r"(?=(\d{3})+(?!\d))"),
    "bloom": splits(BLOOM),
    "viking": splits(BLOOM, r"\p{N}"),
}


def main():
    texts = [t for t in (make.LANGUAGES[::6] + make.EMOJI[::6] + make.WHITESPACE[:9:2] + ["x" + " " * 50 + "y", "a \n b\n\n  c  "] + make.NUMBERS[3:9] + make.NUMBERS[-6:] + make.CODE[::2] +
                         make.CONTRACTIONS[:5] + make.MARKS[::3] + ["HTTPServerError camelCase ÉcoleÀParis ΑβγΔ", "path/to//file /* c */ a/b\n/c", "1234567 and 12345678.9, ١٢٣٤٥٦٧", "don'T I'LL",
                                                                    "안녕하세요 세계 ㄱㄴ", "ㄅㄆㄇ，你好。「引」", "Кот сидит. Ёж!", "é́ क्षि देवनागरी"]) if t and len(t) < 400]
    rows = []
    for name, steps in NAMES.items():
        cut = pre_tokenizers.Sequence(steps)
        rows += [{"pre": name, "words": [word for word, _ in cut.pre_tokenize_str(text)]} for text in texts]
    oracle.write_rows(HERE / "gguf_more_pre_tokenizers.json", rows)
    print(len(rows), "rows")


main()
