"""The closed English dialogue: every question nano understands, and its one spoken reply.

A `Meaning` is one question ("five plus six") with one reply, asked in several phrasings. Replies
are full sentences that repeat the operands, so an answer cannot be faked by a fixed clip. Texts
are spoken words: no digits, no abbreviations, no contractions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from . import phrasings
from .out_of_domain import OUT_OF_DOMAIN_HELD_OUT, OUT_OF_DOMAIN_TRAIN
from .phrasings import Phrasing
from .singles import SINGLES

__all__ = [
    "FALLBACK_ID",
    "FALLBACK_REPLY",
    "MEANINGS",
    "OUT_OF_DOMAIN_HELD_OUT",
    "OUT_OF_DOMAIN_TRAIN",
    "SINGLE_FAMILY",
    "Meaning",
    "all_replies",
]

FALLBACK_ID = "fallback"
FALLBACK_REPLY = "Sorry, I only know a few things."
SINGLE_FAMILY = "single"

NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = (
    "January February March April May June July August September October November December"
).split()
COLORS = {
    "grass": "green",
    "the sky": "blue",
    "snow": "white",
    "blood": "red",
    "a banana": "yellow",
    "coal": "black",
    "chocolate": "brown",
    "a carrot": "orange",
    "a flamingo": "pink",
    "a tomato": "red",
    "milk": "white",
    "an elephant": "gray",
}
OPPOSITES = (
    ("big", "small"),
    ("fast", "slow"),
    ("up", "down"),
    ("open", "closed"),
    ("happy", "sad"),
    ("old", "young"),
    ("left", "right"),
    ("full", "empty"),
    ("hard", "soft"),
    ("long", "short"),
    ("early", "late"),
    ("wet", "dry"),
)
LEGS = {
    "a dog": "the dog has four legs",
    "a bird": "the bird has two legs",
    "a spider": "the spider has eight legs",
    "a beetle": "the beetle has six legs",
    "a horse": "the horse has four legs",
    "a snake": "the snake has no legs",
}
# Worded so that speech recognizers hear them right: "a bee", "a lion", "says hiss" they do not.
SOUNDS = {
    "a dog": "the dog says woof",
    "a cat": "the cat says meow",
    "a cow": "the cow says moo",
    "a duck": "the duck says quack",
    "a pig": "the pig says oink",
    "a lion": "the lion says roar",
    "a frog": "the frog says croak",
    "a bee": "the honey bee says buzz",
    "a snake": "the snake says a long hiss",
    "an owl": "the owl says hoot",
}
CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Germany": "Berlin",
    "Japan": "Tokyo",
    "Egypt": "Cairo",
    "Greece": "Athens",
    "Russia": "Moscow",
    "Austria": "Vienna",
    "Portugal": "Lisbon",
    "Ireland": "Dublin",
    "China": "Beijing",
}
COUNT_TO = (3, 5, 10)
MAX_OPERAND = 10  # of a sum or a difference
MAX_COUNTED = 20  # of "what number comes after"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One question and its reply."""

    id: str
    family: str
    reply: str
    train: tuple[str, ...]
    held_out: tuple[str, ...]


def _sentence(text: str) -> str:
    """The text with a capital first letter."""
    return text[0].upper() + text[1:]


def _meaning(family: str, reply: str, phrasing: Phrasing, **slots: str) -> Meaning:
    """A meaning whose templates are filled from `slots`, which also make up its id."""
    words = [word for value in slots.values() for word in value.lower().split()]
    return Meaning(
        id="_".join([family, *words]),
        family=family,
        reply=_sentence(reply),
        train=tuple(_sentence(text.format(**slots)) for text in phrasing.train),
        held_out=tuple(_sentence(text.format(**slots)) for text in phrasing.held_out),
    )


def _arithmetic() -> Iterator[Meaning]:
    for a in range(MAX_OPERAND + 1):
        for b in range(MAX_OPERAND + 1):
            first, second, total = NUMBERS[a], NUMBERS[b], NUMBERS[a + b]
            reply = f"{first} plus {second} is {total}."
            yield _meaning("add", reply, phrasings.ADD, a=first, b=second)
            if a >= b:
                reply = f"{first} minus {second} is {NUMBERS[a - b]}."
                yield _meaning("subtract", reply, phrasings.SUBTRACT, a=first, b=second)


def _cycle(noun: str, names: list[str], after: Phrasing, before: Phrasing) -> Iterator[Meaning]:
    """What follows and what precedes each name of a circle such as the days of the week."""
    for index, name in enumerate(names):
        follower = names[(index + 1) % len(names)]
        reply = f"the {noun} after {name} is {follower}."
        yield _meaning(f"{noun}_after", reply, after, x=name)
        reply = f"the {noun} before {name} is {names[index - 1]}."
        yield _meaning(f"{noun}_before", reply, before, x=name)


def _neighbours() -> Iterator[Meaning]:
    for number in range(MAX_COUNTED):
        low, high = NUMBERS[number], NUMBERS[number + 1]
        reply = f"the number after {low} is {high}."
        yield _meaning("number_after", reply, phrasings.NUMBER_AFTER, x=low)
        reply = f"the number before {high} is {low}."
        yield _meaning("number_before", reply, phrasings.NUMBER_BEFORE, x=high)


def _facts() -> Iterator[Meaning]:
    for thing, color in COLORS.items():
        reply = f"the color of {thing} is {color}."
        yield _meaning("color", reply, phrasings.COLOR, x=thing)
    for pair in OPPOSITES:
        for word, other in (pair, pair[::-1]):
            reply = f"the opposite of {word} is {other}."
            yield _meaning("opposite", reply, phrasings.OPPOSITE, x=word)
    for animal, reply in LEGS.items():
        yield _meaning("legs", f"{reply}.", phrasings.LEGS, x=animal)
    for animal, reply in SOUNDS.items():
        yield _meaning("sound", f"{reply}.", phrasings.SOUND, x=animal)
    for country, city in CAPITALS.items():
        reply = f"the capital of {country} is {city}."
        yield _meaning("capital", reply, phrasings.CAPITAL, x=country)


def _talk() -> Iterator[Meaning]:
    for top in COUNT_TO:
        reply = ", ".join(NUMBERS[1 : top + 1]) + "."
        yield _meaning("count", reply, phrasings.COUNT, x=NUMBERS[top])
    for name, (reply, phrasing) in SINGLES.items():
        yield Meaning(
            id=name,
            family=SINGLE_FAMILY,
            reply=reply,
            train=tuple(map(_sentence, phrasing.train)),
            held_out=tuple(map(_sentence, phrasing.held_out)),
        )


def _all_meanings() -> Iterator[Meaning]:
    yield from _arithmetic()
    yield from _cycle("day", DAYS, phrasings.DAY_AFTER, phrasings.DAY_BEFORE)
    yield from _cycle("month", MONTHS, phrasings.MONTH_AFTER, phrasings.MONTH_BEFORE)
    yield from _neighbours()
    yield from _facts()
    yield from _talk()


MEANINGS: tuple[Meaning, ...] = tuple(_all_meanings())


def all_replies() -> tuple[str, ...]:
    """Every reply once, in the order of `MEANINGS`, the fallback last."""
    return tuple(dict.fromkeys([*(meaning.reply for meaning in MEANINGS), FALLBACK_REPLY]))
