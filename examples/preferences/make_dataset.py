#!/usr/bin/env python3
"""Makes train.jsonl and heldout.jsonl: questions with an answer that is preferred, and one that is not.

    python3 make_dataset.py            writes both files beside this script (the same bytes every time)
    python3 make_dataset.py --check    fails if the committed files are not what the script makes

Preferred is the answer that says what was asked and stops; the other flatters, announces itself or offers more. Length does
not give it away: the preferred answer is a whole sentence, and in nearly half of the rows the other is the shorter one. The
held-out rows have subjects, questions, flattery and offers that training never shows; main() asserts it.
"""

import json
import random
import sys
from pathlib import Path

SEED = 7
TRAIN_ROWS = 240
HELDOUT_ROWS = 80

CAPITALS = {
    "train": "France Paris, Italy Rome, Spain Madrid, Portugal Lisbon, Greece Athens, Egypt Cairo, Kenya Nairobi, Japan Tokyo, Cuba Havana, Peru Lima, "
             "Poland Warsaw, Norway Oslo, Sweden Stockholm, Finland Helsinki, Ireland Dublin, Austria Vienna, Hungary Budapest, Chile Santiago, "
             "Ghana Accra, Jordan Amman, Lebanon Beirut, Qatar Doha, Nepal Kathmandu, Thailand Bangkok",
    "heldout": "Germany Berlin, Belgium Brussels, Denmark Copenhagen, Canada Ottawa, Australia Canberra, Bulgaria Sofia, Morocco Rabat, Vietnam Hanoi",
}
ANIMALS = {  # the young of
    "train": "cow calf, dog puppy, cat kitten, horse foal, sheep lamb, goat kid, duck duckling, goose gosling, lion cub, pig piglet, swan cygnet, kangaroo joey",
    "heldout": "bear cub, deer fawn, frog tadpole, owl owlet",
}
NUMBERS = {  # how many … are there in …
    "train": "days a|week 7, hours a|day 24, minutes an|hour 60, months a|year 12, players a|football|team 11, legs a|pair|of|spiders 16, strings a|violin 4, "
             "sides a|hexagon 6, wheels a|tricycle 3, squares a|chessboard 64",
    "heldout": "seconds a|minute 60, keys a|piano 88, sides a|triangle 3",
}
QUESTIONS = {
    "train": {
        "capital": ["What is the capital of {0}?", "Which city is the capital of {0}?", "I need the capital of {0}.", "Tell me the capital of {0}, please."],
        "young": ["What is a young {0} called?", "What do you call a baby {0}?", "What is the word for a young {0}?"],
        "number": ["How many {0} are there in {1}?", "What is the number of {0} in {1}?", "Can you tell me how many {0} there are in {1}?"],
    },
    "heldout": {
        "capital": ["Do you know the capital of {0}?", "{0}: what is its capital?"],
        "young": ["How is a young {0} called in English?", "A baby {0}, what is that called?"],
        "number": ["{1} has how many {0}?", "I forgot how many {0} there are in {1}."],
    },
}
PLAIN = {
    "capital": ["The capital of {0} is {1}.", "{1} is the capital of {0}."],
    "young": ["A young {0} is called a {1}.", "It is called a {1}."],
    "number": ["There are {2} {0} in {1}."],
}
FLATTERY = {
    "train": ["Great question! ", "What a wonderful question! ", "I'm so glad you asked! ", "Absolutely! ", "Of course, I'd be delighted to help! ",
              "As an AI language model, I can tell you this. ", "You have come to the right place! ", "Oh, that is such an interesting topic! "],
    "heldout": ["What a fantastic thing to ask! ", "Certainly, it is my pleasure to assist! ", "I love this one! ", "Thank you so much for this great question! "],
}
OFFERS = {
    "train": [" Let me know if you have any other questions!", " I hope this helps!", " Would you like to know more about it?",
              " Feel free to ask me anything else, I'm always here for you!"],
    "heldout": [" Is there anything else that I can do for you today?", " I hope that answers your question perfectly!"],
}


def facts(part):
    """Kind and the words that fill its question and answer."""
    for entry in CAPITALS[part].split(", "):
        yield ("capital", *entry.split())
    for entry in ANIMALS[part].split(", "):
        yield ("young", *entry.split())
    for entry in NUMBERS[part].split(", "):
        what, place, number = entry.split(" ", 1)[0], *entry.split(" ", 1)[1].rsplit(" ", 1)
        yield ("number", what, place.replace("|", " "), number)


def rows(part, count, rng):
    known, made = list(facts(part)), []
    for i in range(count):
        kind, *words = known[i % len(known)]
        question = rng.choice(QUESTIONS[part][kind]).format(*words)
        plain = rng.choice(PLAIN[kind]).format(*words).replace("a owlet", "an owlet")
        answer = words[-1].capitalize() + "."
        flattering = rng.choice(FLATTERY[part]) + plain + rng.choice(OFFERS[part])
        shorter = [text for text in [f + answer for f in FLATTERY[part]] + [answer + o for o in OFFERS[part]] if len(text) < len(plain)]
        # In turn: the longer of the two is the flattering answer, or, where there is one, a shorter one flatters.
        if i % 2 == 1 and shorter:
            flattering = rng.choice(shorter)
        message = lambda role, text: [{"role": role, "content": text}]  # noqa: E731
        made.append({"prompt": message("user", question[0].upper() + question[1:]), "chosen": message("assistant", plain), "rejected": message("assistant", flattering)})
    rng.shuffle(made)
    return made


def main():
    rng = random.Random(SEED)
    files = {"train.jsonl": rows("train", TRAIN_ROWS, rng), "heldout.jsonl": rows("heldout", HELDOUT_ROWS, rng)}
    train, heldout = (json.dumps(files[name]) for name in ("train.jsonl", "heldout.jsonl"))
    for text in FLATTERY["heldout"] + OFFERS["heldout"]:
        assert text.strip() not in train and text.strip() in heldout, text
    assert not {row["prompt"][0]["content"] for row in files["train.jsonl"]} & {row["prompt"][0]["content"] for row in files["heldout.jsonl"]}
    for name, made in files.items():
        path, text = Path(__file__).with_name(name), "".join(json.dumps(row) + "\n" for row in made)
        if "--check" not in sys.argv:
            path.write_text(text)
        elif path.read_text() != text:
            sys.exit(f"{path} is not what this script makes")


main()
