"""The ways to ask each family of questions: templates for training, templates held out of it.

A held-out template recombines words that other templates train, so that it measures whether
the model understands the question and not whether it knows the sentence.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Phrasing:
    """Templates of one family; `{a}`, `{b}` or `{x}` stand for the operands."""

    train: tuple[str, ...]
    held_out: tuple[str, ...]


ADD = Phrasing(
    train=(
        "what is {a} plus {b}?",
        "how much is {a} plus {b}?",
        "tell me {a} plus {b}.",
        "{a} plus {b}?",
        "add {a} and {b}.",
        "what is the sum of {a} and {b}?",
        "please add {a} and {b}.",
        "can you tell me {a} plus {b}?",
        "can you give me the sum of {a} and {b}?",
        "could you add {a} to {b}?",
        "tell me what {a} plus {b} is.",
    ),
    held_out=("tell me the sum of {a} and {b}.", "can you add {a} and {b}?"),
)

SUBTRACT = Phrasing(
    train=(
        "what is {a} minus {b}?",
        "how much is {a} minus {b}?",
        "tell me {a} minus {b}.",
        "{a} minus {b}?",
        "subtract {b} from {a}.",
        "what is {a} take away {b}?",
        "please subtract {b} from {a}.",
        "can you tell me {a} minus {b}?",
        "can you take {b} away from {a}?",
        "tell me what {a} minus {b} is.",
        "how much is {b} subtracted from {a}?",
    ),
    held_out=("how much is {a} take away {b}?", "can you subtract {b} from {a}?"),
)

DAY_AFTER = Phrasing(
    train=(
        "what day comes after {x}?",
        "which day is after {x}?",
        "what is the day after {x}?",
        "tell me the day after {x}.",
        "what day follows {x}?",
        "can you tell me the day after {x}?",
        "tell me what day comes after {x}.",
        "which day follows {x}?",
    ),
    held_out=("which day comes after {x}?", "tell me which day follows {x}."),
)

DAY_BEFORE = Phrasing(
    train=(
        "what day comes before {x}?",
        "which day is before {x}?",
        "what is the day before {x}?",
        "tell me the day before {x}.",
        "what day is right before {x}?",
        "can you tell me the day before {x}?",
        "tell me what day comes before {x}.",
        "which day is right before {x}?",
    ),
    held_out=("which day comes before {x}?", "tell me which day is right before {x}."),
)

MONTH_AFTER = Phrasing(
    train=(
        "what month comes after {x}?",
        "which month is after {x}?",
        "what is the month after {x}?",
        "tell me the month after {x}.",
        "what month follows {x}?",
        "tell me what month comes after {x}.",
        "which month follows {x}?",
        "can you say the month after {x}?",
    ),
    held_out=("which month comes after {x}?", "can you tell me the month after {x}?"),
)

MONTH_BEFORE = Phrasing(
    train=(
        "what month comes before {x}?",
        "which month is before {x}?",
        "what is the month before {x}?",
        "tell me the month before {x}.",
        "what month is right before {x}?",
        "tell me what month comes before {x}.",
        "which month is right before {x}?",
        "can you say the month before {x}?",
    ),
    held_out=("which month comes before {x}?", "can you tell me the month before {x}?"),
)

NUMBER_AFTER = Phrasing(
    train=(
        "what number comes after {x}?",
        "what comes after {x}?",
        "which number is after {x}?",
        "tell me the number after {x}.",
        "what number follows {x}?",
        "tell me what number comes after {x}.",
        "which number follows {x}?",
        "can you tell me the number after {x}?",
    ),
    held_out=("which number comes after {x}?", "what is the number after {x}?"),
)

NUMBER_BEFORE = Phrasing(
    train=(
        "what number comes before {x}?",
        "what comes before {x}?",
        "which number is before {x}?",
        "tell me the number before {x}.",
        "what number is right before {x}?",
        "tell me what number comes before {x}.",
        "which number is right before {x}?",
        "can you tell me the number before {x}?",
    ),
    held_out=("which number comes before {x}?", "what is the number before {x}?"),
)

COLOR = Phrasing(
    train=(
        "what color is {x}?",
        "tell me the color of {x}.",
        "what is the color of {x}?",
        "which color is {x}?",
        "what color does {x} have?",
        "can you tell me the color of {x}?",
        "tell me which color {x} has.",
        "which color is the color of {x}?",
        "can you name the color of {x}?",
        "can you say what color {x} is?",
    ),
    held_out=("which color does {x} have?", "tell me what color {x} is."),
)

OPPOSITE = Phrasing(
    train=(
        "what is the opposite of {x}?",
        "tell me the opposite of {x}.",
        "which word is the opposite of {x}?",
        "what word means the opposite of {x}?",
        "give me the opposite of {x}.",
        "can you give me the opposite of {x}?",
        "what means the opposite of {x}?",
        "tell me which word is the opposite of {x}.",
    ),
    held_out=("which word means the opposite of {x}?", "can you tell me the opposite of {x}?"),
)

LEGS = Phrasing(
    train=(
        "how many legs does {x} have?",
        "tell me how many legs {x} has.",
        "what number of legs does {x} have?",
        "count the legs of {x}.",
        "how many legs are on {x}?",
        "can you count the legs of {x}?",
        "tell me the number of legs of {x}.",
        "can you say how many legs {x} has?",
    ),
    held_out=("can you tell me how many legs {x} has?", "tell me what number of legs {x} has."),
)

SOUND = Phrasing(
    train=(
        "what sound does {x} make?",
        "what does {x} say?",
        "tell me the sound {x} makes.",
        "which sound does {x} make?",
        "what noise does {x} make?",
        "tell me what {x} says.",
        "can you tell me what {x} says?",
        "tell me the noise {x} makes.",
        "can you make the sound of {x}?",
    ),
    held_out=("which noise does {x} make?", "tell me what sound {x} makes."),
)

CAPITAL = Phrasing(
    train=(
        "what is the capital of {x}?",
        "tell me the capital of {x}.",
        "which city is the capital of {x}?",
        "name the capital of {x}.",
        "what city is the capital of {x}?",
        "can you tell me the capital of {x}?",
        "tell me the capital city of {x}.",
        "which city is the capital city of {x}?",
    ),
    held_out=("tell me which city is the capital of {x}.", "can you name the capital of {x}?"),
)

COUNT = Phrasing(
    train=(
        "count to {x}.",
        "can you count to {x}?",
        "please count to {x}.",
        "count up to {x}.",
        "count from one to {x}.",
        "can you please count to {x}?",
        "tell me the numbers from one to {x}.",
        "please count from one to {x}.",
        "can you count up to {x}?",
    ),
    held_out=("can you count from one to {x}?", "please count up to {x}."),
)
