"""Dialogues as grid rows, for measures that only read them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.prompt import Grid

from ..calibration import DIALOGUES
from ..checkpoint import Checkpoint
from ..manifest_facts import model_facts
from ..statistics import Statistics, read_arrays
from .dialogues import Question, Respondent, check_questions, kinds


def answered(
    bundle: Bundle, source: Checkpoint, questions: Sequence[Question], *, threads: int = 1
) -> Iterator[Grid]:
    """Rows [T, 2]: a bundle of the checkpoint answers every question in every way there is.

    Raises ConfigError for a bundle of another checkpoint and without a question.
    """
    check_questions(questions)
    facts = model_facts(source)
    if bundle.manifest.lm != facts["lm"] or bundle.manifest.sources != facts["sources"]:
        raise ConfigError(
            f"{bundle.path} was not made from {source.directory}; name a bundle that was, or make "
            "one: antiphon export"
        )
    respondent = Respondent(bundle, threads=threads)
    for question in questions:
        for asked, replied in kinds(question):
            yield respondent.ask(question, asked, replied)[0].rows


def calibrated(folder: Path, source: Checkpoint) -> Iterator[Grid]:
    """Rows [T, 2] that a calibration of this checkpoint left. Errors as `Statistics.open`."""
    Statistics.open(folder, source)
    yield from read_arrays(folder / DIALOGUES)


def some(grids: Iterable[Grid], rows: int) -> Iterator[Grid]:
    """Dialogues until they have so many rows together; at least one."""
    for grid in grids:
        yield grid
        rows -= len(grid)
        if rows <= 0:
            return
