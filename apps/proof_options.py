"""The options of `antiphon eval` and `antiphon sensitivity`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .option_types import add_threads, count


def add_eval_options(parser: argparse.ArgumentParser) -> None:
    """What is compared with what, on which questions, and where the result goes."""
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="what is examined")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="REFERENCE",
        help="a bundle of the same model, or its checkpoint, which is exported to float32 for the "
        "occasion; without it the bundle is only described",
    )
    _add_questions(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write tables and plots there")
    parser.add_argument("--svg", type=Path, metavar="DIR", help="write the plots there, NAME.svg")
    parser.add_argument(
        "--no-digest",
        dest="digest",
        action="store_false",
        help="leave the bundle's manifest as it is; `antiphon info` then knows nothing of this",
    )


def add_sensitivity_options(parser: argparse.ArgumentParser) -> None:
    """What is quantized, and on which dialogues the loss is measured."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder to read")
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="a bundle of this checkpoint, which makes the dialogues (default: the model that "
        "other commands use)",
    )
    parser.add_argument(
        "--scheme",
        default="int4_b128",
        metavar="NAME",
        help="how each part is stored when its turn comes (default: %(default)s)",
    )
    parser.add_argument(
        "--method",
        choices=("rtn", "mse"),
        default="rtn",
        help="how codes are chosen: rounded to nearest, or with scales of least squared error "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--statistics",
        type=Path,
        metavar="DIR",
        help="of `antiphon calibrate`: take its dialogues, make none",
    )
    parser.add_argument(
        "--rows",
        type=count,
        default=2000,
        metavar="N",
        help="enough rows of dialogue; time and memory grow with them (default: %(default)s)",
    )
    _add_questions(parser)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")


def _add_questions(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--questions",
        type=Path,
        metavar="DIR",
        help="recordings to ask, wav or flac; a questions.json among them says what is said in "
        "them (default: those in the bundle)",
    )
    parser.add_argument("--limit", type=count, metavar="N", help="ask only the first N questions")
    add_threads(parser)
