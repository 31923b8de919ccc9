#!/usr/bin/env python3
"""Makes train.jsonl and heldout.jsonl: short everyday messages, and the JSON line that a program would want from each.

    python3 make_dataset.py            writes both files beside this script (the same bytes every time)
    python3 make_dataset.py --check    fails if the committed files are not what the script makes

A message is an opening, a phrasing and a closing with four slots: {n} a person, {c} a number, {d} a date, {p} a place.
The answer has the fields type, name, count, date, place, always in this order; a value is copied from the message as it
stands there, the count is a number, and what the message does not say is null. The held-out messages use people, places,
phrasings, openings and closings that training never shows; main() asserts it.
"""

import json
import random
import re
import sys
from pathlib import Path

SEED = 20
TRAIN_ROWS = 600
HELDOUT_ROWS = 100
FIELDS = ("type", "name", "count", "date", "place")
SYSTEM = "Extract JSON."

MONTHS = ("January February March April May June July August September October November December "
          "Jan Feb Mar Apr Jun Jul Aug Sept Oct Nov Dec").split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday Mon Tue Wed Thu Fri Sat Sun".split()
FULL_DAYS = DAYS[:7]

THINGS = {  # what is ordered or delivered; never part of the answer
    "train": "lamps, notebooks, chairs, bags of flour, bottles of oil, desks, pillows, candles, light bulbs, blue mugs, "
             "phone cases, boxes of tea, paint brushes, plant pots, wooden spoons, towels, rolls of tape, batteries, "
             "garden gloves, picture frames, red scarves, kettles, shirts, cartons of milk",
    "heldout": "printers, blankets, jars of honey, folding tables, winter coats, wall clocks, sacks of rice, keyboards, "
               "hammers, mirrors, bicycle pumps, umbrellas",
}

FIRST = {
    "train": "Anna Ben Carla David Elena Frank Grace Henry Ingrid Jamal Karen Liam Maria Noah Olga Peter Quentin Rosa Samuel "
             "Tara Ursula Victor Wendy Xavier Yusuf Zoe Ahmed Bianca Chen Diego Emily Fatima George Hanna Ivan Julia Kofi Laura "
             "Marcus Nina Oscar Priya Rachel Stefan Teresa Umar Vera Walter Yara Andre Bruno Chloe Dmitri Esther Felix Gloria "
             "Hugo Irene Jorge Keiko Lucia Mehmet Naomi Otto Paula Ravi Sofia Tomas Amina Boris Adele Aidan Alma Amir Anders "
             "Anil Arthur Astrid Aylin Bart Beatriz Bernard Bilal Bogdan Bridget Camille Cecilia Cedric Celine Charlotte "
             "Claudia Colin Connor Conrad Cynthia Dagmar Damian Daphne Deepa Delphine Derek Dilan Dominic Doris Dylan Edgar "
             "Edith Eduardo Elif Elliot Elsa Enzo Erica Ethan Eugene Fabian Faisal Fiona Florian Freya Gabriel Gareth Gavin "
             "Gerard Gina Giulia Goran Gustav Gwen Hamid Harriet Heidi Helmut Hilda Hiroshi Howard Ibrahim Ida Igor Ilse Imran "
             "Ines Isaac Ivy Jacob Jade Jasmine Javier Jelena Joan Joel Johan Joyce Judith Julius Kai Kamal Karim Kevin Klaus "
             "Kurt Kyle Lars Layla Lena Leonard Lidia Lionel Lorenzo Louise Ludwig Luna Lydia Magnus Malik Manuel Marta Martin "
             "Matteo Maya Megan Milan Mohamed Monica Muriel Nadine Natalia Neil Nigel Nils Noel Nora Olaf Oliver Olivia Owen "
             "Patrick Petra Philip Pilar Rafael Ralph Ramona Raul Rebecca Regina Reza Robin Roland Ruth Salma Sandra Sanjay Saul "
             "Selma Serge Sheila Silvia Sonia Stella Sven Tamara Tariq Theo Tobias Tom Tristan Ulrich Valentina Vanessa Vikram "
             "Vincent Violet Wanda Wesley Wilma Yann Yasmin Yolanda Zachary Zeynep",
    "heldout": "Alice Daniel Robert James William Richard Andrew Edward Scott Adam Max Luke Jane Simon Helen Susan Kelly Emma Nathan "
               "Brian Amber Christine Leon Mark Nancy Aaron",
}
LAST = {
    "train": "Smith Garcia Novak Okafor Larsen Rossi Kim Patel Brown Meyer Silva Tanaka Dubois Cohen Murphy Haddad Ivanov Lopez "
             "Chang Weber Jansen Kowalski Mbeki Fischer Reyes Stone Walker Hill Baker Costa Moreau Nakamura Olsen Petrov Quinn "
             "Abbott Adeyemi Aguilar Bauer Becker Bell Bennett Berg Blake Bose Brandt Brooks Campos Castro Chavez Clarke Collins "
             "Conti Cooper Cruz Dalton Demir Dietrich Doyle Duarte Edwards Engel Evans Fernandez Ferrari Fleming Foster Fraser "
             "Fuentes Gallo Gibson Gomez Graham Gupta Hansen Harper Hayes Hoffman Holm Hughes Hussain Jensen Johansson Jones "
             "Kaplan Kaya Khan Klein Kovacs Kruger Lambert Laurent Lehmann Leone Levy Lindberg Lombardi Malik Mancini Martins "
             "Mendes Mitchell Morales Morgan Navarro Nilsson Nowak Ortega Owens Parker Pereira Perez Popescu Powell Ramos Reed "
             "Ricci Rivera Roberts Romano Russo Santos Sato Schmidt Sharma Singh Sokolov Suzuki Taylor Torres Turner Vega Volkov "
             "Wagner Ward Watson Wilson Wong Wright Yilmaz Young Zhang Ziegler",
    "heldout": "Carter Keller Marino Park Greene Nelson Allen Lewis Adams Marshall Stewart Hamilton Gordon Simpson Harrison Grant "
               "Newton Marsh",
}
CITIES = {
    "train": "Oslo, Madrid, Boston, Cairo, Lima, Toronto, Prague, Seoul, Dublin, Nairobi, Chicago, Vienna, Athens, Denver, Lisbon, "
             "Osaka, Mumbai, Warsaw, Geneva, Dallas, Porto, Hamburg, Seattle, Accra, Naples, Bogota, Leeds, Kyoto, New York, "
             "San Diego, Cape Town, Mexico City, Tel Aviv, St. Louis, Amman, Ankara, Antwerp, Baku, Baltimore, Bangkok, Barcelona, "
             "Basel, Beirut, Belfast, Bilbao, Bremen, Bristol, Bruges, Brussels, Budapest, Calgary, Cardiff, Cologne, Cordoba, "
             "Dakar, Detroit, Doha, Dresden, Durban, Edinburgh, Florence, Frankfurt, Genoa, Ghent, Granada, Graz, Houston, "
             "Istanbul, Jakarta, Kampala, Karachi, Krakow, Kuwait, La Paz, Lagos, Lahore, Leipzig, Liverpool, London, Los Angeles, "
             "Lucerne, Lusaka, Malaga, Marseille, Medellin, Memphis, Miami, Milan, Minsk, Monaco, Montreal, Moscow, Munich, "
             "Nagoya, Nantes, Nice, Nicosia, Odessa, Orlando, Ottawa, Oxford, Palermo, Panama, Paris, Perth, Pisa, Portland, "
             "Quito, Rabat, Reykjavik, Riga, Rio, Rome, Rotterdam, Salzburg, San Jose, Santiago, Seville, Shanghai, Sofia Airport, "
             "Stockholm, Stuttgart, Taipei, Tallinn, Tampa, Tokyo, Trieste, Turin, Utrecht, Valencia, Vancouver, Venice, Verona, "
             "Vilnius, Wellington, York, Zagreb",
    "heldout": "Berlin, Austin, Amsterdam, Melbourne, Cambridge, Columbus, Jackson, Singapore, Beijing, Delhi, Manila, "
               "Southampton, Richmond, Salt Lake City, Hong Kong, Milwaukee, Jerusalem",
}
STREETS = {
    "train": ("Pine Mill Maple King High Elm Moss Baker Rose Church Park Lake River Forest Garden Spring Victoria Orchard Bridge "
              "Station Meadow Walnut Cherry Granite Harbor Lincoln", "Street Road Avenue Lane Court"),
    "heldout": ("Cedar Willow Chestnut Castle Ocean Franklin Juniper", "Street Drive Terrace Lane Square"),
}
VENUES = {
    "train": "the Blue Door, Cafe Luna, Hotel Astoria, the Green Hall, the city library, Harbor House, the north office, Luigi's, "
             "the Old Mill, Bay View Inn, the main station, Golden Dragon, Studio 54, Riverside Park, the town hall, the Red Lion, "
             "Rosewood Clinic, Sunset Grill, Union Square, East Gate, the science museum, Lakeside Lodge, Casa Verde, Oak Tower, "
             "the training center, Bella Vista, the airport, Grand Plaza, Hotel Metropol, Cafe Central, the Black Horse, Tony's, "
             "the Yellow Barn, Chez Marie, the west wing, Pizza Napoli, the old church, Hotel Europa, the sports hall, Sakura, "
             "the Crown, Hilltop Farm, the main office, Blue Lagoon, the Fox and Hound, Rosie's, the concert hall, Kings Arms, "
             "El Toro, the head office, Seaside Resort, the Copper Pot, the university, Olive Tree, Cafe Milano, the harbor",
    "heldout": "the White Swan, Cafe Roma, Hotel Regent, the south warehouse, Mario's, the Silver Spoon, the art gallery, "
               "Poplar Inn, the tennis club, Villa Rossa, the Brown Bear, Hotel Splendid, Noodle Bar, the movie theater",
}

OPENINGS = {
    "train": ["Hi,", "Hello,", "Hey!", "Good morning.", "Please note:", "Quick one:", "Hi there,", "FYI:", "Dear team,", "Hey,",
              "Update:", "Good evening,", "Just so you know,", "Hello!", "Reminder:"],
    "heldout": ["Good afternoon,", "Hiya,", "Heads up:", "Dear all,", "Hey there,", "To whom it may concern:"],
}
CLOSINGS = {
    "train": ["Thanks!", "Thank you.", "Please confirm.", "Cheers.", "See you.", "Let me know.", "Is that ok?", "Best wishes.",
              "Thanks a lot.", "Many thanks.", "Hope that works.", "Call me if not."],
    "heldout": ["Much appreciated.", "Does that work?", "Kind regards.", "Ta!", "Get back to me soon.", "That's all."],
}

PHRASINGS = {
    "train": {
        "reservation": [
            "Can I book a table for {c} at {p} on {d}? The name is {n}.",
            "Table for {c}, {d}, {p}, under {n}.",
            "I'd like to reserve a room for {c} at {p} from {d}. My name is {n}.",
            "{n} here, please hold {c} seats at {p} for {d}.",
            "Please book {p} for {c} people on {d}, name {n}.",
            "We need a dinner reservation at {p}, {d}, {c} guests. Ask for {n}.",
            "Reserve {c} places in the name of {n} at {p}, {d}.",
            "Could {p} seat {c} of us {d}? Booking for {n}.",
            "My name's {n} and I want a table at {p} {d} for {c} persons.",
            "Booking: {n}, party of {c}, {p}, {d}.",
            "On {d} we are {c} for lunch at {p}. It's under {n}.",
            "Please keep {c} rooms free at {p} for {n}, arriving {d}.",
            "For {d}, a booth for {c} at {p}, signed {n}.",
            "{n} wants to reserve {p} on {d} for a party of {c}.",
            "A room at {p} for {n} from {d}, please.",
            "Can you save {c} seats for {n} at {p}?",
            "Please hold a table for {n} at {p}, {c} people.",
            "{n} reserved {p} for {d}.",
            "{d}, dinner for {c}, name {n}.",
        ],
        "order": [
            "I'd like to order {c} {i} for {n}, to be picked up in {p} on {d}.",
            "Order {c} {i} from {p} by {d}, for {n}.",
            "{n} wants to buy {c} {i} in {p} before {d}.",
            "Please add {c} {i} to the order of {n}, store {p}, needed {d}.",
            "New order: {c} {i}, customer {n}, {p}, {d}.",
            "Could you order {c} {i} for {n}? They're needed at {p} {d}.",
            "We're out of {i}. Get {c} more for {p} by {d}, says {n}.",
            "{n} ordered {c} {i} at the {p} shop on {d}.",
            "Purchase request from {n}: {c} {i} for {p}, due {d}.",
            "By {d} I need to buy {c} {i} for {p}. Bill it to {n}.",
            "Put {n} down for {c} {i}, collecting from {p} {d}.",
            "This is {n}. I want {c} {i} sold to me at {p} on {d}.",
            "The shop in {p} should order {c} {i} for {n} until {d}.",
            "Buy {c} {i} in {p}, {n} pays you back {d}.",
            "{n} would like to buy {c} {i} on {d}.",
            "I want to order {i} for {n} at {p} {d}.",
            "Order {c} {i} for {n}, please.",
            "{n} wants to order {c} {i} from {p}.",
            "{c} {i} are on order for {n}, ready in {p}.",
        ],
        "meeting": [
            "Let's meet {n} at {p} on {d}, {c} of us will come.",
            "Meeting with {n} {d} in {p}, {c} people.",
            "{n} has called a meeting for {d} at {p} with {c} attendees.",
            "Can we get {c} people together with {n} in {p} {d}?",
            "{d}: team meeting at {p}, {c} participants, chaired by {n}.",
            "I set up a call with {n} for {d}, {c} people dialing in from {p}.",
            "{n} will see {c} of you at {p} {d} to talk about the budget.",
            "Staff meeting moved to {d}, {p}, {c} persons, host {n}.",
            "Invite {c} colleagues to meet {n} at {p}, {d}.",
            "Please schedule {n} and {c} guests for a talk in {p} on {d}.",
            "The interview panel of {c} meets {n} {d} at {p}.",
            "We'll discuss the plan with {n} at {p} {d}; {c} will attend.",
            "Project review in {p} on {d}, led by {n}, {c} invited.",
            "{c} of us are meeting {n} {d}. Come to {p}.",
            "Meet {n} in {p} {d}.",
            "{n} plans a meeting of {c} people at {p}.",
            "{n} meets {c} people {d}.",
            "The meeting with {n} is at {p}, {c} will come.",
            "{n} asks for a meeting at {p} {d}.",
        ],
        "delivery": [
            "Please deliver {c} {i} to {n} at {p} on {d}.",
            "{c} parcels for {n} will arrive at {p} {d}.",
            "Delivery for {n}: {c} boxes, {p}, {d}.",
            "The courier drops off {c} packages at {p} on {d}. Recipient: {n}.",
            "Send {c} {i} to {p}, attention {n}, to be there {d}.",
            "{n} is waiting for {c} {i} to be delivered to {p} {d}.",
            "Ship {c} crates to {n}, {p}, no later than {d}.",
            "Can you bring {c} {i} to {p} {d}? {n} will sign for them.",
            "Your {c} parcels reach {p} {d}, delivered by {n}.",
            "On {d} our van takes {c} {i} to {n} in {p}.",
            "Shipment of {c} boxes leaves for {p} {d}, addressed to {n}.",
            "{n} missed the delivery of {c} packages to {p}; next try {d}.",
            "Drop {c} {i} at {p} for {n} by {d}.",
            "Expect {c} deliveries at {p} on {d}, ask {n} to open the door.",
            "The parcel for {n} gets to {p} on {d}.",
            "{n} gets {c} boxes delivered on {d}.",
            "Send {c} parcels to {n} in {p}.",
            "{c} packages are on their way to {n}, {p}.",
            "A package for {n} arrives at {p} {d}.",
        ],
        "trip": [
            "{n} is flying to {p} on {d} with {c} friends.",
            "Book {c} train tickets to {p} for {n}, leaving {d}.",
            "We travel to {p} {d}, {c} people, guide {n}.",
            "Trip to {p}: {c} travelers, departing {d}, organized by {n}.",
            "{n} needs {c} flights to {p} for {d}.",
            "I'm {n} and I want {c} bus tickets to {p} on {d}.",
            "A tour of {p} for {c} on {d}, contact {n}.",
            "{n} takes {c} students on a trip to {p} {d}.",
            "Leaving for {p} {d}. {n} drives, {c} passengers.",
            "Get {n} {c} plane tickets to {p}, flying out {d}.",
            "Our holiday in {p} starts {d}: {c} of us, ask {n}.",
            "{d} we take the train to {p}, {c} seats, tickets with {n}.",
            "Weekend trip with {n} to {p}, {c} places left, start {d}.",
            "Will you join {n} on the journey to {p} {d}? We are {c} so far.",
            "{n} is traveling to {p} {d}.",
            "A trip to {p} with {n}, {c} people in the car.",
            "{n} wants {c} tickets to {p}.",
            "{n} leaves for {p} on {d}.",
            "The flight to {p} {d} is booked for {n}.",
        ],
    },
    "heldout": {
        "reservation": [
            "Is there a free table at {p} {d}? We'd be {c}, name of {n}.",
            "I want to make a reservation for {n}: {p}, {c} guests, {d}.",
            "Please put {n} in the book at {p} for {d}, {c} people, table by the window.",
            "{n} would love a table for {c} at {p} {d}.",
            "Hold a room at {p} under {n} for {d}, there are {c} of us.",
        ],
        "order": [
            "Please order me {c} {i}. I'll fetch them in {p} {d}. Regards, {n}.",
            "{n} asked us to order {c} {i} for {d}, branch {p}.",
            "Can {n} still buy {c} {i} at {p} on {d}?",
            "Customer {n} orders {c} {i}, pickup {d}, {p}.",
            "Place an order of {c} {i} with {p} for {n}, to be ready {d}.",
        ],
        "meeting": [
            "There is a meeting at {p} {d}, {n} presents to {c} people.",
            "{n} wants to meet the {c} of us on {d} at {p}.",
            "Meeting request: {p}, {d}, {c} attendees, from {n}.",
            "Could you arrange a meeting between {n} and {c} clients in {p} on {d}?",
            "Our next meeting is in {p} {d} with {n}, {c} seats at the table.",
            "Please come and meet {n} at {p} on {d}.",
        ],
        "delivery": [
            "We will deliver {c} {i} at {p} {d}. Please tell {n}.",
            "{n}, your {c} packages come to {p} on {d}.",
            "Courier job: {c} parcels, deliver to {n}, {p}, {d}.",
            "Have {c} boxes delivered to {p} by {d}, {n} will receive them.",
            "A driver will leave {c} {i} with {n} at {p} {d}, parcel service.",
            "{c} packages were shipped to {p} for {n}.",
        ],
        "trip": [
            "{n} and {c} others go on a trip to {p} {d}.",
            "Please find {c} cheap plane tickets to {p} on {d} for {n}.",
            "I need tickets for a trip to {p}, {c} people, {d}. Signed, {n}.",
            "{n} will travel to {p} on {d} with a group of {c}.",
            "Flight to {p} {d} for {c} passengers, booked by {n}.",
            "The train trip to {p} leaves {d}, {n} is in charge.",
        ],
    },
}


def names(split, rng):
    first = rng.choice(FIRST[split].split())
    return f"{first} {rng.choice(LAST[split].split())}" if rng.random() < 0.45 else first


def place(split, rng):
    kind = rng.random()
    if kind < 0.5:
        return rng.choice(CITIES[split].split(", "))
    if kind < 0.7:
        return " ".join(rng.choice(part.split()) for part in STREETS[split])
    return rng.choice(VENUES[split].split(", "))


def date(rng):
    day, month = rng.randint(1, 28), rng.choice(MONTHS)
    ordinal = f"{day}{'th' if 10 < day < 20 else {1: 'st', 2: 'nd', 3: 'rd'}.get(day % 10, 'th')}"
    hour = rng.choice(["noon", "8am", "7pm", "10:30", "6 pm", "14:00", "9 am", "4:15"])
    return rng.choice([
        f"{day} {month}", f"{month} {day}", f"{month} {ordinal}", f"{day}/{rng.randint(1, 12)}",
        f"{rng.choice((2025, 2026, 2027))}-{rng.randint(1, 12):02}-{day:02}",
        rng.choice(DAYS), rng.choice(FULL_DAYS), f"next {rng.choice(FULL_DAYS)}", f"{rng.choice(FULL_DAYS)} at {hour}",
        f"{rng.choice(DAYS)} {day} {month}",
    ])


def message(split, kind, phrasing, rng):
    slots = {"n": names(split, rng), "c": str(rng.choice([*range(2, 13), rng.randint(13, 60), rng.randint(2, 400)])),
             "d": date(rng), "p": place(split, rng)}
    opening = rng.choice(OPENINGS[split]) if rng.random() < 0.3 else ""
    first = phrasing[1] if phrasing.startswith("{") else ""
    if not opening.endswith(","):  # a sentence begins with a capital, also where a slot begins it
        slots[first] = slots.get(first, " ")[0].upper() + slots.get(first, " ")[1:]
    elif not re.match(r"I\b|{", phrasing):
        phrasing = phrasing[0].lower() + phrasing[1:]
    text = f"{opening} {phrasing}".strip().format(**slots, i=rng.choice(THINGS[split].split(", ")))
    said = [slots[s] if f"{{{s}}}" in phrasing else None for s in "ncdp"]
    if rng.random() < 0.2:
        text = f"{text} {rng.choice(CLOSINGS[split])}"
    assert all(v is None or v in text for v in said), (text, said)
    answer = dict(zip(FIELDS, (kind, said[0], said[1] and int(said[1]), said[2], said[3])))
    return text, json.dumps(answer, separators=(",", ":"))


def make(split, rows, rng):
    """Every phrasing is used equally often, in an order drawn by the generator."""
    phrasings = [(kind, p) for kind, ps in PHRASINGS[split].items() for p in ps]
    seen, out = set(), []
    while len(out) < rows:
        rng.shuffle(phrasings)
        for kind, phrasing in phrasings:
            text, answer = message(split, kind, phrasing, rng)
            if text in seen or len(out) == rows:
                continue
            seen.add(text)
            out.append({"prompt": [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}],
                        "completion": [{"role": "assistant", "content": answer}]})
    return out


def assert_disjoint():
    def words(table, split):
        return {w.strip().lower() for w in re.split(r", " if "," in table[split] else r"\s+", table[split])}

    for table in (FIRST, LAST, CITIES, VENUES, THINGS):
        assert not words(table, "train") & words(table, "heldout"), words(table, "train") & words(table, "heldout")
    people = {s: words(FIRST, s) | words(LAST, s) for s in FIRST}
    assert not people["train"] & people["heldout"], people["train"] & people["heldout"]
    assert not set(STREETS["train"][0].split()) & set(STREETS["heldout"][0].split())
    for table in (OPENINGS, CLOSINGS):
        assert not set(table["train"]) & set(table["heldout"])
    skeleton = {s: {re.sub(r"\W+", " ", re.sub(r"{\w}", "", p)).lower().strip() for ps in PHRASINGS[s].values() for p in ps}
                for s in PHRASINGS}
    assert not skeleton["train"] & skeleton["heldout"], skeleton["train"] & skeleton["heldout"]
    for kind, ps in PHRASINGS["heldout"].items():
        assert not set(ps) & set(PHRASINGS["train"][kind])


def assert_rows_apart(train, heldout):
    """The same, seen from the rows: no value of a held-out answer that names a person or a place is found in training."""
    training = "\n".join(r["prompt"][1]["content"].lower() for r in train)
    for row in heldout:
        answer = json.loads(row["completion"][0]["content"])
        for value in (answer["name"], answer["place"]):
            assert value is None or not re.search(rf"\b{re.escape(value.lower())}\b", training), value


def main():
    assert_disjoint()
    rng = random.Random(SEED)
    files = {"train.jsonl": make("train", TRAIN_ROWS, rng), "heldout.jsonl": make("heldout", HELDOUT_ROWS, rng)}
    assert_rows_apart(*files.values())
    here = Path(__file__).resolve().parent
    for name, rows in files.items():
        text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
        if "--check" in sys.argv[1:]:
            assert (here / name).read_text(encoding="utf-8") == text, f"{name} is not what this script makes"
        else:
            (here / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
