"""Tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells below each other, two spaces between columns; rows without any words are left out.

    A row may be shorter than others.
    """
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=False)) for row in rows)
    return [f"  {line.rstrip()}" for line in lines if line.strip()]
