"""The options of `antiphon analyze`."""

from __future__ import annotations

import argparse
from pathlib import Path

from .option_types import count

SIMILARITY, TOKENIZER = "similarity", "tokenizer"
ABOUT = {
    SIMILARITY: "How alike sentences are, spoken and written, at every layer of the model.",
    TOKENIZER: "How much of the words is left in the codes: train a small recognizer on them.",
}
LIMITS = {SIMILARITY: 64, TOKENIZER: 1000}
STEPS = 400


def add_options(parser: argparse.ArgumentParser, experiment: str) -> None:
    """What is looked at, on which recordings, and where the result goes."""
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="folder to read")
    parser.add_argument(
        "recordings",
        type=Path,
        metavar="RECORDINGS",
        help="folder of NAME.wav or NAME.flac with what is said in them: index.jsonl of lines "
        '{"file": "NAME.flac", "text": "…"}, or NAME.txt beside each',
    )
    limit = LIMITS[experiment]
    parser.add_argument(
        "--limit",
        type=count,
        default=limit,
        metavar="N",
        help=f"take the first N recordings (default: {limit})",
    )
    if experiment == TOKENIZER:
        parser.add_argument(
            "--steps",
            type=count,
            default=STEPS,
            metavar="N",
            help=f"of each recognizer's training (default: {STEPS})",
        )
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", help="draw into this folder (SVG; needs matplotlib)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
