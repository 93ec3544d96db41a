"""`antiphon sensitivity`: which layers of a checkpoint lose most when quantized, one at a time."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError

from . import proof_questions
from .evaluate import check_writable
from .export import TOOLS
from .export_progress import Bar, Lines
from .text_table import columns

_HEAD = ["quantized alone", "weights", "size", "speech KL", "same", "text KL", "same", "rule"]


def run(args: argparse.Namespace) -> int:
    """Make dialogues or take those of a calibration; print the losses, the greatest first."""
    tool, opened = _tools()
    check_writable(args.json)
    source = opened(args.checkpoint)
    progress = Bar(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)
    try:
        losses = tool(
            source,
            _dialogues(args, source),
            scheme=args.scheme,
            method=args.method,
            progress=progress,
        )
    finally:
        progress.close()
    print("\n".join(columns([_HEAD, *map(_row, losses)])))
    if args.json:
        found = [asdict(loss) for loss in losses]
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


def _tools() -> tuple[Callable[..., Any], Callable[..., Any]]:
    try:
        from antiphon.export.checkpoint import Checkpoint
        from antiphon.export.proof.sensitivity import sensitivity
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TOOLS:
            raise  # a bug of ours, not a missing extra
        raise ConfigError(
            f"reading a checkpoint needs {error.name}; install the tools: pip install "
            "'antiphon[export]'"
        ) from error
    return sensitivity, Checkpoint.open


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
