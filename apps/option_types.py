"""Words of the command line as numbers, refused where argparse can still explain."""

from __future__ import annotations

import argparse


def count(word: str) -> int:
    """A whole number from 1."""
    return _at_least(1, word)


def seed(word: str) -> int:
    """A whole number from 0."""
    return _at_least(0, word)


def _at_least(least: int, word: str) -> int:
    if not (word.isascii() and word.isdecimal()) or int(word) < least:
        raise argparse.ArgumentTypeError(f"expected a whole number from {least}, got {word!r}")
    return int(word)


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
