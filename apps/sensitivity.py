"""`antiphon sensitivity`: which layers of a checkpoint lose most when quantized, one at a time."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from antiphon.runtime.bundle import Bundle

from . import proof_questions
from .extras import needed_for
from .progress import progress
from .results import check_writable, write_json
from .text_table import columns

_HEAD = ["quantized alone", "weights", "size", "speech KL", "same", "text KL", "same", "rule"]


def run(args: argparse.Namespace) -> int:
    """Make dialogues or take those of a calibration; print the losses, the greatest first."""
    with needed_for("reading a checkpoint"):
        from antiphon.export.checkpoint import Checkpoint
        from antiphon.export.proof.sensitivity import sensitivity
    check_writable(args.json)
    source = Checkpoint.open(args.checkpoint)
    with progress() as shown:
        losses = sensitivity(
            source,
            _dialogues(args, source),
            scheme=args.scheme,
            method=args.method,
            progress=shown,
        )
    print("\n".join(columns([_HEAD, *map(_row, losses)])))
    if args.json:
        write_json(args.json, [asdict(loss) for loss in losses])
    return 0


def _dialogues(args: argparse.Namespace, source: Any) -> Iterator[Any]:
    """Rows [T, 2] of dialogues, `args.rows` of them in all; made when they are asked for."""
    from antiphon.export.proof.dialogues import Question
    from antiphon.export.proof.grids import answered, calibrated, some

    if args.statistics:
        yield from some(calibrated(args.statistics, source), args.rows)
        return
    bundle = Bundle.open(args.bundle)
    found = proof_questions.load(args.questions, bundle, args.limit)
    questions = [Question(*question) for question in found]
    yield from some(answered(bundle, source, questions, threads=args.threads), args.rows)


def _row(loss: Any) -> list[str]:
    cells = [loss.part, loss.scheme, f"{loss.nbytes / 1e6:.2f} MB"]
    for head in ("speech", "text"):
        if head in loss.kl:
            cells += [f"{loss.kl[head]:.3g}", f"{loss.agreement[head]:.1%}"]
        else:
            cells += ["", ""]
    return [*cells, loss.match]
