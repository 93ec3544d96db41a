"""`antiphon eval`: how much a bundle has lost, in numbers, against what it was made from."""

from __future__ import annotations

import argparse
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from antiphon.runtime import voice_files
from antiphon.runtime.bundle import MANIFEST, Bundle
from antiphon.runtime.errors import BundleError

from . import proof_questions
from .exchange import note
from .extras import needed_for
from .progress import Lines, progress
from .results import check_writable, make_folder, write_json
from .text_table import columns


def run(args: argparse.Namespace) -> int:
    """Ask, print tables, write what was asked for, and put the digest into the manifest."""
    from antiphon.export.proof.dialogues import Question
    from antiphon.export.proof.evaluation import evaluate
    from antiphon.export.proof.sound import find_listener

    bundle = Bundle.open(args.bundle)
    check_writable(args.json, args.html)
    make_folder(args.svg)
    found = proof_questions.load(args.questions, bundle, args.limit)
    asked = [Question(*question) for question in found]
    with progress() as shown, _reference(args.against, bundle, shown) as reference:
        report = evaluate(
            bundle,
            asked,
            reference,
            listener=find_listener(),
            threads=args.threads,
            progress=shown,
        )
    print("\n".join(_lines(report)))
    _write(args, report)
    if report.reference and args.digest:
        _record(bundle.path, report.digest())
    return 0


def _reference(path: Path | None, bundle: Bundle, shown: Lines) -> AbstractContextManager[Any]:
    """The reference, opened: a bundle, or a checkpoint exported for the occasion."""
    if path is None:
        return nullcontext()
    if (path / MANIFEST).is_file():
        return nullcontext(Bundle.open(path))
    with needed_for("a checkpoint as reference", instead=", or name a bundle"):
        from antiphon.export.proof.reference import exported
    return exported(path, bundle, shown)


def _write(args: argparse.Namespace, report: Any) -> None:
    """The files asked for."""
    if args.json:
        write_json(args.json, report.as_dict())
    if args.html:
        from antiphon.export.proof.page import page

        args.html.write_text(page(report), encoding="utf-8")
    if args.svg:
        from antiphon.export.proof.charts import charts

        for name, picture in charts(report).items():
            (args.svg / f"{name}.svg").write_text(picture + "\n", encoding="utf-8")


def _record(folder: Path, digest: dict[str, str | int | float]) -> None:
    """Put the digest into the manifest; a bundle that cannot be changed is none the worse."""
    try:
        voice_files.set_quality(folder, digest)
    except BundleError as error:
        note(f"the digest is not recorded: {error}")


def _lines(report: Any) -> list[str]:
    """All tables, columns below each other."""
    from antiphon.export.proof.tables import tables

    lines: list[str] = []
    for table in tables(report):
        lines += ["", table.title, *columns([table.head, *table.rows])]
        lines += [f"  {table.note}"] if table.note else []
    return lines[1:]
