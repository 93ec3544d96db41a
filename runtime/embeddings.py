"""Embedding rows, gathered and dequantized on the host: they never occupy the accelerator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.int64]  # rows [n, 2] of (text id, audio id)


@dataclass(frozen=True, slots=True)
class Table:
    """Rows [V, H] float32, float16, or int8 codes with one float32 scale per row [V]."""

    rows: NDArray[Any]
    scales: NDArray[np.float32] | None = None

    def gather(self, ids: Grid) -> NDArray[np.float32]:
        """Ids [n] -> rows [n, H]."""
        found: NDArray[np.float32] = self.rows[ids].astype(np.float32)
        return found if self.scales is None else found * self.scales[ids][:, None]


@dataclass(frozen=True, slots=True)
class Embeddings:
    """Both channels' tables. A row of the grid selects from one of them, never a sum."""

    text: Table
    audio: Table
    modality_pad: int

    def rows(self, grid: Grid) -> NDArray[np.float32]:
        """Grid rows [n, 2] -> embeddings [n, H]: by audio id where the text id is the pad.

        Source: contract A.3.
        """
        spoken = grid[:, 0] == self.modality_pad
        found = np.empty((len(grid), self.text.rows.shape[1]), np.float32)
        found[spoken] = self.audio.gather(grid[spoken, 1])
        found[~spoken] = self.text.gather(grid[~spoken, 0])
        return found
