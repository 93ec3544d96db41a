"""What to speak, in which voice and how fast: one deterministic list of items for each set.

Every draw is seeded by the item's own name, so a rerun makes the same plan, and a longer plan
starts with the shorter one. Questions go in rounds, each a shuffled pass over the whole domain:
any prefix of the plan is a balanced sample.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..domain import (
    FALLBACK_ID,
    FALLBACK_REPLY,
    MEANINGS,
    OUT_OF_DOMAIN_HELD_OUT,
    OUT_OF_DOMAIN_TRAIN,
    SINGLE_FAMILY,
    all_replies,
)
from .voices import HELD_OUT_VOICES, REPLY_VOICE, draw_cheap_voice, draw_question_voice

REPLY_RENDITIONS = 4
SINGLE_WEIGHT = 3  # times a single question is asked while any other is asked once
ROUNDS_PER_FALLBACK_PASS = 4  # rounds in which every out-of-domain sentence is spoken once
QUESTION_ROUNDS = 10
ACCENT_ROUNDS = 14
FIRST_ACCENT_ROUND = 3  # so that accents start with other phrasings than the questions do
EVAL_QUESTIONS = 520
ASKED_RATE = (0.8, 1.25)
EVAL_RATE = (0.9, 1.1)
REPLY_RATE = (0.92, 1.08)


@dataclass(frozen=True, slots=True)
class Item:
    """One utterance to make; `speed` is relative to the engine's own (2 is twice as fast)."""

    name: str
    text: str
    meaning: str
    voice: str
    speed: float
    split: str


def _round_of_questions(number: int) -> list[tuple[str, str]]:
    """One pass over the domain: (meaning, text) pairs, shuffled."""
    asked = []
    for place, meaning in enumerate(MEANINGS):
        times = SINGLE_WEIGHT if meaning.family == SINGLE_FAMILY else 1
        for turn in range(times):
            index = (place + number * times + turn) % len(meaning.train)
            asked.append((meaning.id, meaning.train[index]))
    part = OUT_OF_DOMAIN_TRAIN[number % ROUNDS_PER_FALLBACK_PASS :: ROUNDS_PER_FALLBACK_PASS]
    asked += [(FALLBACK_ID, text) for text in part]
    random.Random(f"round {number}").shuffle(asked)
    return asked


def _asked(set_name: str, rounds: range, draw: Callable[[random.Random], str]) -> Iterator[Item]:
    pairs = [pair for number in rounds for pair in _round_of_questions(number)]
    for index, (meaning, text) in enumerate(pairs):
        name = f"{index:05d}_{meaning}"
        rng = random.Random(f"{set_name}/{name}")
        voice = draw(rng)
        yield Item(name, text, meaning, voice, round(rng.uniform(*ASKED_RATE), 3), "train")


def replies() -> Iterator[Item]:
    """Every reply in the reply voice, all first renditions before all second ones."""
    owner = {meaning.reply: meaning.id for meaning in MEANINGS} | {FALLBACK_REPLY: FALLBACK_ID}
    for rendition in range(REPLY_RENDITIONS):
        for reply in all_replies():
            name = f"{owner[reply]}_r{rendition}"
            rng = random.Random(f"replies/{name}")
            speed = round(rng.uniform(*REPLY_RATE), 3) if rendition else 1.0
            yield Item(name, reply, owner[reply], REPLY_VOICE, speed, "train")


def questions() -> Iterator[Item]:
    """Training phrasings in the training voices of the teacher and their blends."""
    return _asked("questions", range(QUESTION_ROUNDS), draw_question_voice)


def accents() -> Iterator[Item]:
    """Training phrasings in the voices of small, fast engines."""
    rounds = range(FIRST_ACCENT_ROUND, FIRST_ACCENT_ROUND + ACCENT_ROUNDS)
    return _asked("accents", rounds, draw_cheap_voice)


def evaluation() -> Iterator[Item]:
    """Held-out phrasings in held-out voices: each meaning once, then again in a shuffled order."""
    order = random.Random("eval").sample(MEANINGS, len(MEANINGS))
    asked = [(order[i % len(order)], i // len(order)) for i in range(EVAL_QUESTIONS)]
    pairs = [(m.id, m.held_out[turn % len(m.held_out)]) for m, turn in asked]
    pairs += [(FALLBACK_ID, text) for text in OUT_OF_DOMAIN_HELD_OUT]
    for index, (meaning, text) in enumerate(pairs):
        name = f"{index:05d}_{meaning}"
        speed = round(random.Random(f"eval/{name}").uniform(*EVAL_RATE), 3)
        voice = HELD_OUT_VOICES[index % len(HELD_OUT_VOICES)]
        yield Item(name, text, meaning, voice, speed, "eval")


SETS: dict[str, Callable[[], Iterator[Item]]] = {
    "replies": replies,
    "questions": questions,
    "accents": accents,
    "eval": evaluation,
}
