"""`antiphon inspect`: what a checkpoint folder holds and lacks, and which card it would fit."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from .extras import needed_for
from .text_table import columns

PARTS = {
    "lm": "language model",
    "tokenizer": "speech tokenizer",
    "flow": "flow decoder",
    "hift": "vocoder",
}
FITS = (
    "rows of conversation that a graphics card holds; a second of speech takes 12.5",
    "(computed: weights, codec in 16 bits, keys and values, 1.2 GiB for CUDA)",
)


def run(args: argparse.Namespace) -> int:
    """Print the report; 1 where `antiphon export` would not open the checkpoint."""
    with needed_for("inspecting"):
        from antiphon.export.inspect import inspect
    report = inspect(args.checkpoint)
    if args.json:
        facts = {"complete": report.complete, "missing": report.missing, **asdict(report)}
        print(json.dumps(facts, ensure_ascii=False, default=str))
    else:
        print("\n".join(_lines(report)))
    return 0 if report.complete else 1


def _lines(report: Any) -> list[str]:
    head = ["file", "size", "tensors", "values", "stored as"]
    lines = [str(report.directory), *columns([head, *map(_file, report.files)])]
    if report.voices:
        lines.append(f"voices: {', '.join(report.voices)}")
    if report.parameters:
        parts = [[PARTS[key], f"{count:,}"] for key, count in report.parameters.items()]
        lines += ["", "parameters needed", *columns(parts)]
    if report.fits:
        lines += ["", *FITS, *columns(_fits(report.fits))]
    missing = ", ".join(report.missing)
    lines += ["", *([f"missing: {missing}"] if missing else [])]
    lines += [f"problem: {problem}" for problem in report.problems]
    return [*lines, "complete"] if report.complete else lines


def _file(file: Any) -> list[str]:
    if file.size_bytes is None:
        return [file.file, "absent" if file.optional else "MISSING"]
    row = [file.file, _size(file.size_bytes)]
    if file.tensors:
        types = " ".join(file.dtypes)
        row += [f"{file.tensors:,}", f"{file.parameters:,}", types]
    return row


def _fits(fits: dict[int, dict[str, Any]]) -> list[list[str]]:
    """A line per card and way of storing weights; the simplest placement first."""
    return [
        [f"{card} GB", weights, "; ".join(map(_fit, found)) or "no"]
        for card, ways in fits.items()
        for weights, found in ways.items()
    ]


def _fit(fit: Any) -> str:
    way = f" with {fit.way}" if str(fit.way) else ""
    return f"{fit.rows:,} rows{way} ({fit.total_gib} GiB)"


def _size(count: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count} bytes"
