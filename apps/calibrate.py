"""`antiphon calibrate`: what the matrices of a checkpoint meet, for the export to round them by."""

from __future__ import annotations

import argparse

from antiphon.runtime.bundle import Bundle

from . import proof_questions
from .extras import needed_for
from .progress import progress


def run(args: argparse.Namespace) -> int:
    """Calibrate, saying on stderr what is being done."""
    with needed_for("calibrating"):
        from antiphon.export.calibration import calibrate
    questions = proof_questions.load(args.questions, Bundle.open(args.bundle, verify=False), None)
    try:
        with progress() as shown:
            found = calibrate(
                args.checkpoint,
                args.statistics,
                args.bundle,
                progress=shown,
                recordings=[pcm for _, pcm, _ in questions],
                texts=[text for _, _, text in questions if text],
                dialogues=args.dialogues,
                rows=args.rows,
                seed=args.seed,
                threads=args.threads,
                device=args.device,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("the same command goes on from there") from None
    index = found.index
    print(f"{args.statistics}: {len(index.layers)} layers, {index.rows} rows of dialogue")
    return 0
