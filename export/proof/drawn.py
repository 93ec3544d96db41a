"""Which rows of a dialogue the model drew: where its heads are asked, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from antiphon.runtime.history import TEXT
from antiphon.runtime.manifest import SpecialTokens
from antiphon.runtime.prompt import Grid

from .dialogues import SPEECH, WRITTEN


def drawn_rows(rows: Grid, tokens: SpecialTokens, opening: Sequence[int]) -> dict[str, list[int]]:
    """Rows [T, 2] -> by head, the indices of the rows that it drew, in order.

    opening   text ids that every assistant's turn begins with, without the start of speech

    A spoken reply is drawn up to its end of speech, a written one up to the end of its turn; what
    follows either is the template's. Speech inside a written reply is the speech head's.
    """
    found: dict[str, list[int]] = {SPEECH: [], WRITTEN: []}
    at, ids = 0, rows[:, TEXT]
    while at + len(opening) < len(rows):
        if not np.array_equal(ids[at : at + len(opening)], opening):
            at += 1
            continue
        at += len(opening)
        spoken = bool(ids[at] == tokens.sosp)
        for row in _reply(rows, at + spoken, tokens, spoken=spoken):
            found[SPEECH if ids[row] == tokens.modality_pad else WRITTEN].append(row)
            at = row + 1
    return found


def _reply(rows: Grid, first: int, tokens: SpecialTokens, *, spoken: bool) -> Iterator[int]:
    """The rows drawn from `first` on."""
    for row in range(first, len(rows)):
        text, audio = rows[row]
        if spoken and text != tokens.modality_pad:  # cut off: the template goes on
            return
        yield row
        if text in tokens.stops or (spoken and audio == tokens.eosp):
            return
