"""NAME.data: the constants of one graph, one after the other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64  # bytes


class DataFile:
    """A file that grows by reserved ranges, each starting at a multiple of `ALIGNMENT`."""

    def __init__(self, path: Path) -> None:
        """Make `path` an empty file."""
        self.path, self.size = path, 0
        path.write_bytes(b"")

    def reserve(self, nbytes: int) -> int:
        """Set a range aside and return its offset; what is not written there reads as zeros."""
        offset = self.size + -self.size % ALIGNMENT
        self.size = offset + nbytes
        return offset

    def append(self, data: NDArray[Any]) -> int:
        """Write an array behind the others and return its offset."""
        offset = self.reserve(data.nbytes)
        self.write_rows(offset, data.reshape(1, -1), data.nbytes)
        return offset

    def write_rows(self, offset: int, rows: NDArray[Any], stride: int) -> None:
        """Write rows [N, n], row i at offset + i · stride bytes."""
        whole = rows.nbytes == len(rows) * stride
        lines = [rows.reshape(-1)] if whole else list(rows)
        with self.path.open("r+b", buffering=0) as file:
            for i, line in enumerate(lines):
                _write(file.fileno(), np.ascontiguousarray(line), offset + i * stride, self.path)


def _write(handle: int, line: NDArray[Any], offset: int, path: Path) -> None:
    view, done = line.view(np.uint8).data, 0
    while done < len(view):
        try:
            done += os.pwrite(handle, view[done:], offset + done)
        except OSError as error:  # such as a full disk
            raise OSError(error.errno, error.strerror, str(path)) from error
