"""Words of the command line as numbers, refused where argparse can still explain."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def count(word: str) -> int:
    """A whole number from 1."""
    return _at_least(1, word)


def seed(word: str) -> int:
    """A whole number from 0."""
    return _at_least(0, word)


def _at_least(least: int, word: str) -> int:
    if (number := _whole(word)) is None or number < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {word!r}")
    return number


def within(allowed: range, unit: str) -> Callable[[str], int]:
    """A whole number in that range."""

    def read(word: str) -> int:
        if (number := _whole(word)) is None or number not in allowed:
            raise argparse.ArgumentTypeError(
                f"expected {allowed[0]} to {allowed[-1]} {unit}, got {word!r}"
            )
        return number

    return read


def _whole(word: str) -> int | None:
    return int(word) if word.isascii() and word.isdecimal() else None


def share(word: str) -> float:
    """Above 0, at most 1."""
    if (number := positive(word)) > 1:
        raise argparse.ArgumentTypeError(f"expected at most 1, got {word}")
    return number


def positive(word: str) -> float:
    """Above 0, at most 100."""
    try:
        number = float(word)
    except ValueError:
        number = 0.0
    if not 0 < number <= 100:
        raise argparse.ArgumentTypeError(f"expected a number above 0, at most 100, got {word!r}")
    return number


def add_threads(parser: argparse.ArgumentParser) -> None:
    """--threads, which means the same everywhere."""
    parser.add_argument(
        "--threads", type=count, default=1, metavar="N", help="of each engine (default: 1)"
    )
