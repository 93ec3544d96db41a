"""The rows of a conversation so far: what the repetition penalty looks at (contract C.2 step 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]  # rows [n, 2] of (text id, audio id)

TEXT, AUDIO = 0, 1  # channels of the grid


class History:
    """Every row, and which ids occurred in each channel among those not forgotten."""

    def __init__(self, text_vocab: int, audio_vocab: int) -> None:
        self._counts = (np.zeros(text_vocab, np.int32), np.zeros(audio_vocab, np.int32))
        self._rows = np.empty((256, 2), np.int64)
        self._length = 0
        self._forgotten = 0  # rows before it are counted no more, but for the pinned ones

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> Grid:
        """Every row so far [n, 2], read-only."""
        rows = self._rows[: self._length]
        rows.flags.writeable = False
        return rows

    def extend(self, rows: Grid) -> None:
        """Append rows [n, 2]."""
        end = self._length + len(rows)
        if end > len(self._rows):
            grown = np.empty((max(end, 2 * len(self._rows)), 2), np.int64)
            grown[: self._length] = self._rows[: self._length]
            self._rows = grown
        self._rows[self._length : end] = rows
        self._length = end
        for channel, counts in enumerate(self._counts):
            np.add.at(counts, rows[:, channel], 1)

    def rewind(self, rows: int) -> None:
        """Undo the last rows, none of them forgotten."""
        assert 0 <= rows <= self._length - self._forgotten
        self._uncount(self._rows[self._length - rows : self._length])
        self._length -= rows

    def forget(self, start: int, stop: int) -> None:
        """Rows start … stop - 1 are out of the model's sight: as if their ids never occurred."""
        assert self._forgotten <= start or start == stop
        if start < stop:
            self._uncount(self._rows[start:stop])
            self._forgotten = stop

    def clear(self) -> None:
        """No row at all."""
        self._length = self._forgotten = 0
        for counts in self._counts:
            counts[:] = 0

    def seen(self, channel: int) -> NDArray[np.bool_]:
        """Which ids occurred in a channel [V], in rows that are not forgotten."""
        return self._counts[channel] > 0

    def _uncount(self, rows: Grid) -> None:
        for channel, counts in enumerate(self._counts):
            np.subtract.at(counts, rows[:, channel], 1)
