"""`antiphon calibrate`: what the matrices of a checkpoint meet, for the export to round them by."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError

from . import proof_questions
from .export_progress import Bar, Lines

TOOLS = {"onnx", "safetensors", "torch"}
INTERRUPTED = 130


def run(args: argparse.Namespace) -> int:
    """Calibrate, saying on stderr what is being done."""
    calibrate = _calibrator()
    questions = proof_questions.load(args.questions, Bundle.open(args.bundle, verify=False), None)
    progress = Bar(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)
    try:
        found = calibrate(
            args.checkpoint,
            args.statistics,
            args.bundle,
            progress=progress,
            recordings=[pcm for _, pcm, _ in questions],
            texts=[text for _, _, text in questions if text],
            dialogues=args.dialogues,
            rows=args.rows,
            seed=args.seed,
            threads=args.threads,
            device=args.device,
        )
    except KeyboardInterrupt:
        progress.close()
        print("antiphon: interrupted; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    finally:
        progress.close()
    index = found.index
    print(f"{args.statistics}: {len(index.layers)} layers, {index.rows} rows of dialogue")
    return 0


def _calibrator() -> Callable[..., Any]:
    try:
        from antiphon.export.calibration import calibrate
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TOOLS:
            raise  # a bug of ours, not a missing extra
        raise ConfigError(
            f"calibrating needs {error.name}; install the tools: pip install 'antiphon[export]'"
        ) from error
    return calibrate
