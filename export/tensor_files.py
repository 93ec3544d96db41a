"""Checkpoint files on disk, read one tensor, or some of its rows, at a time.

A file is opened once and read with `pread`: nothing of it is mapped, so memory holds what was asked
for and no more, whatever the size of the file, and several threads may read at once.
"""

from __future__ import annotations

import json
import math
import os
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.errors import CorruptFile

Weights = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

MAX_JSON_BYTES = 64 << 20  # the published tokenizer.json is a sixth of it
WEIGHT_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}  # what a weight may be stored as
OTHER_BYTES = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4}
OTHER_BYTES |= {"U64": 8, "I64": 8, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1}
ITEM_BYTES = WEIGHT_BYTES | OTHER_BYTES
LFS_POINTER = b"version https://git-lfs"


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CorruptFile when it is missing, too large or something else."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise ValueError(f"more than {MAX_JSON_BYTES >> 20} MB")
        raw = json.loads(data)
    except FileNotFoundError:
        raise CorruptFile(f"{path}: missing; is this a MOSS-Speech checkpoint folder?") from None
    except (OSError, ValueError, RecursionError) as error:
        raise CorruptFile(f"{path}: not readable as JSON ({error}); download it again") from error
    if not isinstance(raw, dict):
        raise CorruptFile(f"{path}: holds a JSON {type(raw).__name__}, expected an object")
    return raw


class OpenFile:
    """A file kept open for reads at given places; closed when the object is dropped."""

    def __init__(self, path: Path) -> None:
        """Open `path`. Raises CorruptFile when it is missing or stands for another file."""
        if not path.is_file():
            raise CorruptFile(f"{path}: missing; is the checkpoint complete?")
        try:
            self._fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        except OSError as error:
            raise CorruptFile(f"{path}: cannot be opened ({error.strerror})") from error
        weakref.finalize(self, os.close, self._fd)
        self.path, self.size = path, os.fstat(self._fd).st_size
        if self.size < 1024 and self.read(0, self.size).startswith(LFS_POINTER):
            raise CorruptFile(
                f"{path}: a Git LFS pointer, not the file itself; run `git lfs pull` beside it"
            )

    def read_into(self, offset: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` from byte `offset`. Raises CorruptFile where the file ends before."""
        view, done = out.data, 0
        while done < len(view):
            count = os.preadv(self._fd, [view[done:]], offset + done)
            if count == 0:
                raise CorruptFile(
                    f"{self.path}: ends at byte {offset + done}, expected "
                    f"{offset + len(view)} or more; download it again"
                )
            done += count

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes from `offset`."""
        out = np.empty(count, np.uint8)
        self.read_into(offset, out)
        return out.tobytes()


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor lies; row-major unless `strides`, in values, say otherwise."""

    file: OpenFile
    dtype: str  # a key of ITEM_BYTES, or a name that no weight may have
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.strides is not None and self.strides == _row_major(self.shape):
            object.__setattr__(self, "strides", None)

    @property
    def count(self) -> int:
        """How many values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values; 0 for a type of unknown width."""
        return self.count * ITEM_BYTES.get(self.dtype, 0)

    def read(self, start: int, stop: int) -> Weights:
        """Rows start to stop of the first axis; all of it when the tensor is a single value.

        Raises OverflowError for a finite value that float32 does not hold.
        """
        if self.strides is not None:
            return self._gather()[start:stop].copy()
        shape = (stop - start, *self.shape[1:]) if self.shape else ()
        row = math.prod(self.shape[1:]) * WEIGHT_BYTES[self.dtype]
        return self._values(self.offset + start * row, math.prod(shape)).reshape(shape)

    def _gather(self) -> Weights:
        strides = self.strides or ()
        span = 1 + sum((n - 1) * s for n, s in zip(self.shape, strides, strict=True))
        flat = self._values(self.offset, span if self.count else 0)
        steps = tuple(4 * s for s in strides)
        return np.lib.stride_tricks.as_strided(flat, self.shape, steps, writeable=False)

    def _values(self, offset: int, count: int) -> Weights:
        raw = np.empty(count * WEIGHT_BYTES[self.dtype], np.uint8)
        self.file.read_into(offset, raw)
        if self.dtype == "F32":
            return raw.view("<f4").astype(np.float32, copy=False)
        if self.dtype == "F16":
            return raw.view("<f2").astype(np.float32)
        if self.dtype == "F64":
            return _narrowed(raw.view("<f8"))
        wide = np.empty(count, np.uint32)  # the upper half of a float32
        np.left_shift(raw.view("<u2"), 16, out=wide, dtype=np.uint32)
        return wide.view(np.float32)


@dataclass(slots=True)
class TensorFile:
    """Named tensors of one file, or of one set of shards; `path` names the whole in messages."""

    path: Path
    tensors: Mapping[str, Stored]
    shapes: Shapes = field(init=False)

    def __post_init__(self) -> None:
        self.shapes = {name: stored.shape for name, stored in self.tensors.items()}

    def renamed(self, names: Mapping[str, str]) -> TensorFile:
        """The same tensors; `names` maps stored to wanted spelling.

        Raises CorruptFile for a tensor that is there in both: nobody knows which one counts.
        """
        for stored, wanted in names.items():
            if wanted in self.tensors:
                raise CorruptFile(
                    f"{self.path}: {wanted} is there a second time as {stored}, expected one of "
                    "the two; download it again"
                )
        return TensorFile(self.path, {names.get(n, n): s for n, s in self.tensors.items()})

    def read(self, name: str) -> Weights:
        """The tensor `name`, a private float32 copy.

        Raises CorruptFile when it is missing, not of F64, F32, F16 or BF16, or beyond float32.
        """
        stored = self._weight(name)
        return self._rows(name, stored, 0, stored.shape[0] if stored.shape else 1)

    def read_rows(self, name: str, start: int, stop: int) -> Weights:
        """Rows [start, stop) of the first axis, float32 [stop - start, ...]; as `read`."""
        stored = self._weight(name)
        if not stored.shape or not 0 <= start <= stop <= stored.shape[0]:
            raise ValueError(f"rows {start} to {stop} of {name} {list(stored.shape)}")
        return self._rows(name, stored, start, stop)

    def check_types(self, names: Iterable[str]) -> None:
        """Raise CorruptFile unless each of these can be read."""
        for name in names:
            self._weight(name)

    def _rows(self, name: str, stored: Stored, start: int, stop: int) -> Weights:
        try:
            return stored.read(start, stop)
        except OverflowError as error:
            raise CorruptFile(
                f"{stored.file.path}: {name} holds {error}, more than float32 can; download it "
                "again"
            ) from None

    def _weight(self, name: str) -> Stored:
        stored = self.tensors.get(name)
        if stored is None:
            raise CorruptFile(f"{self.path}: {name} is missing; is this the right file?")
        if stored.dtype not in WEIGHT_BYTES:
            raise CorruptFile(
                f"{stored.file.path}: {name} is {stored.dtype}, expected F64, F32, F16 or BF16"
            )
        return stored


def _narrowed(wide: NDArray[np.float64]) -> Weights:
    """Rounded to float32; infinities stay, and none is made. Raises OverflowError."""
    with np.errstate(over="ignore", under="ignore"):
        narrow = wide.astype(np.float32)
    lost = wide[np.isinf(narrow) & np.isfinite(wide)]
    if len(lost):
        raise OverflowError(f"{lost[0]:g}")
    return narrow


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
