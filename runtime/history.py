"""The rows that the model remembers: what the repetition penalty looks at (contract C.2 step 3)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]  # rows [n, 2] of (text id, audio id)

TEXT, AUDIO = 0, 1  # channels of the grid


class History:
    """Every row that was not forgotten, and which ids occur in each channel of them."""

    def __init__(self, text_ids: int, audio_ids: int) -> None:
        self._counts = (np.zeros(text_ids, np.int32), np.zeros(audio_ids, np.int32))
        self._rows = np.empty((256, 2), np.int64)
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def rows(self) -> Grid:
        """The rows [n, 2], read-only; they move when some are forgotten."""
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
        """Undo the last rows."""
        self.forget(self._length - rows, rows)

    def forget(self, start: int, rows: int) -> None:
        """Drop `rows` rows from `start` on, as if they had never been; later ones close ranks."""
        assert 0 <= start <= start + rows <= self._length
        gone, rest = np.split(self._rows[start : self._length], [rows])
        for channel, counts in enumerate(self._counts):
            np.subtract.at(counts, gone[:, channel], 1)
        self._rows[start : start + len(rest)] = rest.copy()
        self._length -= rows

    def clear(self) -> None:
        """No row at all."""
        self._length = 0
        for counts in self._counts:
            counts[:] = 0

    def seen(self, channel: int) -> NDArray[np.bool_]:
        """Which ids occur in a channel [V]."""
        return self._counts[channel] > 0
