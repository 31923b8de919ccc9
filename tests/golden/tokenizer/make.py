#!/usr/bin/env python3
"""make.py SmolLM2-135M-Instruct.Q4_1.gguf: ids of one corpus under five tokenizers, as the `tokenizers` library gives them."""

import json
import random
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
import oracle  # noqa: E402
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors,  # noqa: E402
                        trainers)

HERE = Path(__file__).resolve().parent

LANGUAGES = """The quick brown fox jumps over the lazy dog.
Zażółć gęślą jaźń
Příliš žluťoučký kůň úpěl ďábelské ódy
Falsches Üben von Xylophonmusik quält jeden größeren Zwerg
Voix ambiguë d’un cœur qui au zéphyr préfère les jattes de kiwis
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío; ¿añoraba a su querido cachorro?
Pijamalı hasta yağız şoföre çabucak güvendi, İstanbul ıssız
Þú dazt á hnéð í vök og yfir blóm sexý pæju
Съешь же ещё этих мягких французских булок, да выпей чаю
Чуєш їх, доцю, га? Кумедна ж ти, прощайся без ґольфів!
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία
ζαφείρι δέξου πάγκαλο, βαθῶν ψυχῆς τὸ σῆμα
דג סקרן שט בים מאוכזב ולפתע מצא חברה
שָׁלוֹם עֲלֵיכֶם
نص حكيم له سر قاطع وذو شأن عظيم مكتوب على ثوب أخضر ومغلف بجلد أزرق
العَرَبِيَّةُ ١٢٣٤٥٦٧٨٩٠
بر آن باش که مردم را به نیکی یاد کنی ۱۲۳
ہم سب پاکستانی ہیں
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण १२३
আমি বাংলায় গান গাই ১২৩
ਪੰਜਾਬੀ ਗੁਰਮੁਖੀ
ગુજરાતી ભાષા
தமிழ் மொழி மிகவும் பழமையானது
తెలుగు భాష
ಕನ್ನಡ ನುಡಿ
മലയാളം അക്ഷരമാല
සිංහල අකුරු
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า ๑๒๓
ພາສາລາວ
བོད་སྐད་ཡིག
မြန်မာဘာသာ ၁၂၃
ក្រុងភ្នំពេញ ១២៣
ქართული ენა
Հայերեն լեզու
አማርኛ ፊደል ፩፪፫
ᏣᎳᎩ ᎦᏬᏂᎯᏍᏗ
ᐃᓄᒃᑎᑐᑦ
いろはにほへと ちりぬるを
イロハニホヘト チリヌルヲ ﾊﾝｶｸ
吾輩は猫である。名前はまだ無い。
我能吞下玻璃而不伤身体。
我能吞下玻璃而不傷身體。
키스의 고유조건은 입술끼리 만나야 하고
한국어 정규화
ᠮᠣᠩᠭᠣᠯ ᠪᠢᠴᠢᠭ
ⵜⴰⵎⴰⵣⵉⵖⵜ
ᚠᛇᚻ᛫ᛒᛦᚦ᛫ᚠᚱᚩᚠᚢᚱ
𐌰𐌽𐌰 𐌲𐌿𐍄𐌹𐍃𐌺𐌰
𒀀𒈾 𓀀𓂀𓆣 𐎀𐎁
Tiếng Việt có nhiều dấu: ắ ằ ẳ ẵ ặ
ʻŌlelo Hawaiʻi; Lingála; Yorùbá ọ̀rọ̀""".split("\n")

EMOJI = ["😀", "😀😃😄😁", "👍🏽", "👩🏿‍🚀", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "🇳🇴🇯🇵🇧🇷", "🇳", "❤️ vs ❤", "☺︎ ☺️", "1️⃣2️⃣#️⃣", "🧑🏻‍❤️‍💋‍🧑🏾", "a😀b 😀 c",
         "‍", "️", "🫠🪿🩷", "♟️♾️™️©®"]

WHITESPACE = [""] + [" " * n for n in (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 64, 129, 500)] + ["\t" * n for n in (1, 2, 3, 4, 8, 30)] + \
    ["\n" * n for n in (1, 2, 3, 4, 9, 40)] + [
    "\r\n", "\r\n\r\n", "\r", "a\r\nb", " \n", "\n ", " \n \n ", "\t \t", "a  b", "a   b", " a", "  a", "a ", "a  ", "\ta", "a\n", "a\n\nb", "a \n b",
    "  \n  x", "\u00a0", "a\u00a0b", "\u2003\u2003x", "\u3000全角", "\u200bzero\u200bwidth", "\u2028line\u2029para", "\ufeffbom", "\u0085nel", "\x0b\x0c",
    "\u1680\u180e\u202f\u205f", "x" + " " * 50 + "y", " " * 10 + "\n" + " " * 10 + "z"]

NUMBERS = ["0", "1", "10", "123", "1234567890", "3.14159", "-7", "+1", "1,000,000", "1e-5", "0x1F", "0b1010", "12:30", "2026-05-17", "v1.2.3",
           "a1b2c3", "1st 2nd 3rd", "½ ¼ ¾", "x² + y³", "①②③", "ⅠⅡⅢⅣ", "٣٫١٤", "१२३", "𝟏𝟐𝟑", "１２３", "五六七", "10%", "$5.00", "€3", "1 2 3", "  42  ",
           "99bottles", "route66x", "1\n2", "౧౨౩ ௧௨௩", "൰൱", "〇〡〢"]

CODE = ["int main(int argc, char** argv) {\n\treturn 0;\n}\n", "def f(x):\n    return x**2  # square\n", "for (let i = 0; i < n; ++i) { a[i] += b[i]; }",
        "SELECT * FROM t WHERE a='b' AND c>=10;", "<div class=\"x\">&nbsp;</div>", "{\"a\":[1,2,{\"b\":null}]}", "#!/bin/sh\nset -e\n", "C:\\Users\\x\\y",
        "https://example.org/a?b=c&d=%20#e", "user.name+tag@example.com", "a->b.c::d<e>()", "!@#$%^&*()_+-=[]{}|;':\",./<>?`~", "----------", "==========",
        "......", "!!!???", "___", "\\n\\t\\0", "\"quoted\" 'single' “curly” ‘x’", "snake_case camelCase PascalCase kebab-case SCREAMING", "\\frac{a}{b} $x_i^2$",
        "// TODO(x): fix\n/* c */", "if(a&&b||!c){}", "λx.x → ∀y∃z ≠ ∅", "€£¥₿₹", "…—–-‑", "»«‹›„‟"]

CONTRACTIONS = ["I'm you're he's we'll they'd I've don't", "I'M YOU'RE HE'S WE'LL THEY'D I'VE DON'T", "'s 't 're 've 'm 'll 'd", "it''s", "I’m don’t", "rock'n'roll",
                "o'clock 'tis '90s", "'", "''", "x'", "'x", " 's", "s's's", "can'T", "We'Ll"]

MARKS = ["é e\u0301", "ñ n\u0303", "Å A\u030a \u212b", "ﬁ ﬂ ﬃ", "a\u0300\u0301\u0302\u0303\u0304", "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘!͖̬̰̙̗̿̋ͥͥ̂ͣ̐́́͜͞", "\u1100\u1161\u11a8 각", "ক্ষ क्ष", "א\u05b7ב",
         "שלום world مرحبا 123 עולם", "\u202eright to left\u202c", "\u200fabc\u200e", "\u2066x\u2069", "english עברית english", "ß ẞ ſ İ ı ǅ", "Ⅷ ㎏ ㍿ ﷺ",
         "ｆｕｌｌｗｉｄｔｈ", "𝓢𝓬𝓻𝓲𝓹𝓽 𝔉𝔯𝔞𝔨𝔱𝔲𝔯", "\u0301", " \u0301", "\u0344\u0958\u09dc"]

CONTROL = [chr(c) for c in range(1, 32)] + ["\x00", "a\x00b", "\x7f", "\x80\x9f", "\ufffd", "\ufffe\uffff", "\U0010ffff", "\ue000", "\U000f0000", "\u2060", "\u00ad",
           "\x1b[31mred\x1b[0m", "\x07\x08"]

SPECIAL = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|im_start|>user\nhi<|im_end|>\n", "a<|im_end|>b", "a <|im_end|> b", "<|im_start|><|im_start|>", "<|im_start",
           "|im_end|>", "<|IM_END|>", "<repo_name>", "<reponame>", "<file_sep>", "<filename>", "<issue_start>", "<jupyter_code>", "<empty_output>", "<gh_stars>x",
           "<|im_end|>\n<|im_start|>assistant\n", "1<|im_end|>2", "<s>", "</s>", "<unk>", "a<s>b</s>c", "[INST] x [/INST]", "<|begin_of_text|>", "<0x41>", "<0x0A>", "▁", "a▁b", "Ġ", "aĠb",
           "<|im_start|>system\nJSON: type.<|im_end|>\n<|im_start|>user\nTable for 4<|im_end|>\n<|im_start|>assistant\n"]

BROKEN = [b"\xff", b"\xfe\xff", b"\x80", b"abc\x80def", b"\xc3", b"\xc3(", b"a\xe2\x82", b"\xe2\x82x", b"\xf0\x9f\x98", b"\xf0\x9f\x98 ok", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\xaf",
          b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xed\xa0\xbd\xed\xb8\x80", b"\xf4\x90\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xf0\x80\x80\x80", b"\xe2\x28\xa1", b"\xf0\x28\x8c\xbc",
          b"\xf0\x90\x28\xbc", "é".encode("latin-1"), "naïve café".encode("latin-1"), "日本".encode("utf-16-le"), "日本".encode("shift_jis"), b"\xbf" * 5, b"\xf1\x80\x80", b"ok \xe6\x97\xa5\xe6 end"]

WORDS = ["hello", " hello", "Hello World", "HELLO", "antidisestablishmentarianism", "supercalifragilisticexpialidocious", "a" * 100, "ab" * 60, "Mississippi",
         "Donaudampfschifffahrtsgesellschaft", "the the the", "tHiS iS wEiRd", "e.g. i.e. etc.", "U.S.A.", "well-known", "and/or", "x" * 3 + " " * 3 + "y" * 3, "aaa bbb\nccc\tddd",
         "日本語とEnglishの混在テキスト", "price:$10USD", "ａｂｃabc"]


def corpus(rng):
    texts = LANGUAGES + EMOJI + WHITESPACE + NUMBERS + CODE + CONTRACTIONS + MARKS + CONTROL + SPECIAL + WORDS
    pieces = [t for t in LANGUAGES + EMOJI + NUMBERS + CODE + MARKS + WORDS if t]
    texts += ["".join(rng.choice(pieces)[:rng.randint(1, 12)] + rng.choice(["", " ", "  ", "\n", "\t", " \n"]) for _ in range(8)) for _ in range(40)]
    texts += everyday(rng)[:12]
    random_bytes = [bytes(rng.randrange(256) for _ in range(rng.randint(3, 24))) for _ in range(10)]
    return [t.encode("utf-8") for t in texts] + BROKEN + random_bytes


def training_text():
    return everyday(random.Random(1)) + LANGUAGES + CODE + CONTRACTIONS


EVERYDAY = ["Please book a table for {} people at the Old Mill on {}, name {}.", "Can you send {} parcels to the office before {}? Thanks, {}!",
            "There are {} of us at the meeting {}, and {} will lead it.", "I'd like to order {} lamps for {} and they'll be picked up by {}.",
            "We take the train on {} with {} others; the tickets are with {}.",
            '{{"type":"order","count":{},"date":"{}","name":"{}","place":null}}']


def everyday(rng):
    return [rng.choice(EVERYDAY).format(rng.randint(2, 99), rng.choice(["Monday", "5 May", "next Friday", "2026-03-14", "tomorrow"]),
                                        rng.choice(["Anna", "Victor Stone", "Priya", "Olga Meyer", "Liam"])) for _ in range(200)]


CHATML = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def special(tokens):
    return [AddedToken(t, special=True, normalized=False) for t in tokens]


def tiny_byte_level():
    """GPT-2's pre-tokeniser, ChatML control tokens, nothing added around the text: the shape of SmolLM2's own tokenizer.json."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(training_text(), trainers.BpeTrainer(
        vocab_size=600, special_tokens=special(CHATML), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False), AddedToken("</think>", special=False, normalized=False, lstrip=True, rstrip=True)])
    return tokenizer


def tiny_split_regex():
    """NFC, a Split pattern with case folding and possessive ranges, BOS from a TemplateProcessing: Qwen2's and Llama 3's shape."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
                             behavior="isolated", invert=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    names = ["<|begin_of_text|>", *CHATML]
    tokenizer.train_from_iterator(training_text(), trainers.BpeTrainer(
        vocab_size=600, special_tokens=special(names), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1", special_tokens=[("<|begin_of_text|>", 0)])])
    return tokenizer


def sentencepiece_parts():
    """Vocabulary and merges over '▁' words, behind <unk> <s> </s> and the 256 byte tokens, as Llama 2 orders them."""
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    latin = [t for t in training_text() if all(ord(c) < 0x250 for c in t)]
    trained.train_from_iterator(latin, trainers.BpeTrainer(vocab_size=360, special_tokens=[], show_progress=False))
    model = json.loads(trained.to_str())["model"]
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)] + sorted(model["vocab"], key=model["vocab"].get)
    return {p: i for i, p in enumerate(pieces)}, [tuple(m) for m in model["merges"]]


def tiny_sentencepiece():
    """Llama 2: a normaliser prepends and replaces with '▁', no pre-tokeniser, byte fallback, <s> in front."""
    vocab, merges = sentencepiece_parts()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(special(["<unk>", "<s>", "</s>"]))
    return tokenizer


def tiny_metaspace():
    """Mistral and later Llama 2 files: Metaspace(first), not split, byte fallback."""
    vocab, merges = sentencepiece_parts()
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(special(["<unk>", "<s>", "</s>"]))
    return tokenizer


def cases(tokenizer, texts):
    plain = Tokenizer.from_str(tokenizer.to_str())
    plain.encode_special_tokens = True
    for data in texts:
        text = data.decode("utf-8", errors="replace")
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        row = {"bytes_b64": oracle.b64(data), "ids": ids, "ids_no_special": plain.encode(text, add_special_tokens=False).ids,
               "decoded_b64": oracle.b64(tokenizer.decode(ids, skip_special_tokens=False).encode("utf-8"))}
        if tokenizer.post_processor is not None:
            row["ids_with_post_processor"] = tokenizer.encode(text, add_special_tokens=True).ids
        yield row


def main():
    texts = corpus(random.Random(7))
    oracle.write_rows(HERE / "smollm2.json", cases(oracle.smollm2_tokenizer(oracle.gguf_path()), texts))
    for make in (tiny_byte_level, tiny_split_regex, tiny_sentencepiece, tiny_metaspace):
        folder = HERE / make.__name__.removeprefix("tiny_")
        folder.mkdir(exist_ok=True)
        tokenizer = make()
        (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=False) + "\n", encoding="utf-8")
        oracle.write_rows(folder / "cases.json", cases(tokenizer, texts))
    oracle.write_versions(HERE)


if __name__ == "__main__":
    main()
