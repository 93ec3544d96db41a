"""The options of `antiphon calibrate`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .option_types import add_threads, count, seed


def add_options(parser: argparse.ArgumentParser) -> None:
    """What is watched, what is asked, and what is kept."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder to read")
    parser.add_argument(
        "statistics",
        type=Path,
        metavar="STATISTICS",
        help="folder to make; the same command goes on where it was stopped",
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="a bundle of this checkpoint, however it is stored, which makes the dialogues "
        "(default: the model that other commands use)",
    )
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="DIR",
        help="recordings to ask, wav or flac; texts that go with them are asked in writing too "
        "(default: those in the bundle)",
    )
    _add_amounts(parser)
    parser.add_argument(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the layers run, one at a time (default: cpu)",
    )


def _add_amounts(parser: argparse.ArgumentParser) -> None:
    for option, default, about in (
        ("--dialogues", 64, "conversations of one to three turns"),
        ("--rows", 4096, "rows kept of each input; disk and time of the export grow with them"),
    ):
        parser.add_argument(
            option, type=count, default=default, metavar="N", help=f"{about} (default: {default})"
        )
    add_threads(parser)
    parser.add_argument(
        "--seed",
        type=seed,
        default=0,
        metavar="N",
        help="of the order of questions, the replies and the rows kept (default: 0)",
    )
