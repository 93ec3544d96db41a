"""Keys and values of one engine in fixed memory: a ring that can rewind (design §5).

Position p is the p-th row ever written. The first `pinned` positions own a slot each; the others
share the rest of the capacity in a ring. So while p < capacity, slot(p) = p and the cache is an
ordinary one; after that each row overwrites the oldest unpinned one.

A call that writes `chunk` rows overwrites `chunk` old ones before its first row has looked back.
Rows therefore only ever see the last `window` = ring - chunk + 1 unpinned positions: that makes
the result independent of how the rows are cut into calls.

Unused slots hold zeros, and slots out of sight any finite numbers: the mask adds -6e4 to their
scores, which hides every number but not a NaN. An engine may keep int8 codes (`quant.kv_cache`):
it rounds the rows it writes, and the ring only moves them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .backend import Buffer, Engine
from .errors import BundleError, CapacityError, ConfigError

HIDDEN = -6e4  # added to the score of a slot out of sight; finite in float16, unlike -inf


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayout:
    """What one group of cache tensors [B, G, C, D] looks like, apart from its capacity C."""

    names: tuple[str, ...]  # inputs; those with `key_` in their name hold keys
    batch: int
    heads: int  # key-value heads
    head_dim: int
    dtype: str = "float32"
    device: str = "cpu"

    @classmethod
    def of(cls, engine: Engine, prefix: str = "") -> Self:
        """Read the layout from the inputs `{prefix}key_*` and `{prefix}value_*` of an engine."""
        kinds = (f"{prefix}key_", f"{prefix}value_")
        specs = [spec for name, spec in engine.inputs.items() if name.startswith(kinds)]
        shapes = {(spec.shape[0], spec.shape[1], spec.shape[3], spec.dtype) for spec in specs}
        if len(shapes) != 1 or any(isinstance(size, str) for size in next(iter(shapes))[:3]):
            raise BundleError(
                f"{engine.name}: caches {prefix}key_*, {prefix}value_* have shapes {shapes}, "
                "expected one fixed [B, G, C, D]; export the bundle again"
            )
        batch, heads, head_dim, dtype = shapes.pop()
        return cls(
            names=tuple(spec.name for spec in specs),
            batch=int(batch),
            heads=int(heads),
            head_dim=int(head_dim),
            dtype=dtype,
            device=engine.device,
        )

    @property
    def row_bytes(self) -> int:
        """Memory of one row in all tensors."""
        numbers = self.batch * self.heads * self.head_dim * len(self.names)
        return numbers * np.dtype(self.dtype).itemsize


class KVRing:
    """The caches of all layers of one group; they share positions, slots and storage size.

    capacity  rows in all; storage grows towards it by doubling, because on the CPU attention
              costs what is allocated
    pinned    first rows, never overwritten; `pinned=capacity` makes a linear cache
    chunk     most rows that one call may write once rows are overwritten, and most rows that
              can be rewound then
    """

    def __init__(
        self,
        layout: CacheLayout,
        capacity: int,
        *,
        pinned: int = 0,
        chunk: int = 1,
        initial: int = 512,
    ) -> None:
        ring = capacity - pinned
        if not (0 <= pinned <= capacity and 1 <= chunk <= max(1, ring) and initial >= 1):
            raise ConfigError(
                f"a ring of {capacity} rows cannot pin {pinned}, write {chunk} at once and start "
                f"with {initial}; need pinned + chunk <= capacity"
            )
        self.layout = layout
        self.capacity = capacity
        self.pinned = pinned
        self.chunk = chunk
        self.window = ring - chunk + 1 if ring else 0
        self._ring = ring
        self._initial = min(initial, capacity)
        self.clear()

    @classmethod
    def for_engine(
        cls,
        engine: Engine,
        capacity: int,
        *,
        pinned: int = 0,
        chunk: int = 1,
        initial: int = 512,
        prefix: str = "",
    ) -> Self:
        """A ring for the caches that `engine` declares."""
        layout = CacheLayout.of(engine, prefix)
        return cls(layout, capacity, pinned=pinned, chunk=chunk, initial=initial)

    def clear(self) -> None:
        """Forget every row and begin with new storage: a NaN in the old one would show through."""
        self.buffers: Mapping[str, Buffer] = self._allocate(self._initial)
        self.reset()

    def reset(self) -> None:
        """Forget every row; the storage and what is in it are kept."""
        self.length = 0  # rows written, rewound ones not counted
        self._first = self.pinned  # unpinned rows before it were evicted
        self._written = 0  # the greatest length ever: rows before it may be overwritten
        self._plain_keys: dict[str, NDArray[np.float32]] = {}  # pinned keys before any rotation

    @property
    def allocated(self) -> int:
        """Rows of storage now: C in the engine's shapes."""
        return self._allocated

    @property
    def nbytes(self) -> int:
        """Memory of the storage."""
        return sum(buffer.nbytes for buffer in self.buffers.values())

    @property
    def first(self) -> int:
        """The oldest unpinned position that the next row sees."""
        return self._sees_from(self.length)

    @property
    def evicted(self) -> int:
        """Unpinned rows hidden for good by `evict`."""
        return self._first - self.pinned

    @property
    def free(self) -> int:
        """Rows that fit before the oldest row drops out of sight (linear: before it is full)."""
        return self._first + self.window - self.length

    @property
    def rewindable(self) -> int:
        """The largest n for which `rewind(n)` restores the past exactly."""
        lost = self._written - self._ring  # older unpinned rows are overwritten
        if self._written > self.capacity and lost > self._first:
            return max(0, self.length - (lost + self.window - 1))
        return self.length if self._first == self.pinned else self.length - self._first

    def slot(self, position: int) -> int:
        """Where the row at `position` is stored."""
        if position < self.pinned:
            return position
        if not self._ring:
            raise CapacityError(
                f"row {position} does not fit in a cache of {self.capacity} rows; "
                "reset it, or open it with a larger capacity"
            )
        return self.pinned + (position - self.pinned) % self._ring

    def plan(self, rows: int) -> list[tuple[int, int]]:
        """Cut the next `rows` rows into calls (count, write_index), contiguous in storage.

        Raises CapacityError when they do not fit in a linear cache.
        """
        if not self._ring and rows:
            self.slot(self.length + rows - 1)
        pieces: list[tuple[int, int]] = []
        position, end = self.length, self.length + rows
        while position < end:
            slot = self.slot(position)
            most = self.chunk if position >= self.capacity else rows
            count = min(end - position, self.capacity - slot, most)
            pieces.append((count, slot))
            position += count
        return pieces

    def feeds(self, first: int, rows: int, *, causal: bool = True) -> dict[str, NDArray[Any]]:
        """The engine inputs `mask` [rows, C] and `write_index` [B] of the next call."""
        mask = self.mask(first, rows, causal=causal)
        return {"mask": mask, "write_index": np.full(self.layout.batch, self.slot(first))}

    def mask(self, first: int, rows: int, *, causal: bool = True) -> NDArray[np.float32]:
        """What the next rows, positions first ... first + rows - 1, see: [rows, C], 0 or -6e4.

        Grows the storage if they need it. With causal=False the rows also see each other's
        future. `rows` is one piece of `plan`.
        """
        assert first == self.length, "the next rows follow the last ones"
        end = self.slot(first) + rows  # slot after the last row
        assert end <= self.capacity, "one piece of the plan"
        self._reserve(end)
        held = np.arange(self._allocated)  # the newest position in each slot after this call
        if first >= self.capacity:
            held[self.pinned :] += first + rows - end
            held[end:] -= self._ring
        query = np.arange(first, first + rows)[:, None]
        newest = query if causal else first + rows - 1
        visible = (held <= newest) & (held >= np.maximum(self._first, query - self.window + 1))
        visible[:, : self.pinned] = held[: self.pinned] <= newest
        return np.where(visible, np.float32(0), np.float32(HIDDEN))

    def advance(self, rows: int) -> None:
        """Count rows that the engine has written."""
        self.length += rows
        self._written = max(self._written, self.length)

    def rewind(self, rows: int) -> None:
        """Undo the last `rows` rows: afterwards they have never been run.

        Raises CapacityError, and changes nothing, when rows they overwrote would come into
        sight again, or when they were evicted.
        """
        if not 0 <= rows <= self.rewindable:
            raise CapacityError(
                f"cannot rewind {rows} of {self.length} rows: only {self.rewindable} are still "
                f"whole in a ring of {self.capacity}; evict earlier, or raise the capacity"
            )
        self.length -= rows

    def evict(self, rows: int) -> None:
        """Hide `rows` rows for good, counted from `first`, the oldest one the next row sees."""
        assert 0 <= rows <= max(0, self.length - self.first), "evicts rows that do not exist"
        if rows:
            self._first = self.first + rows

    def rotate_pinned(self, offset: int, frequencies: NDArray[np.float64]) -> None:
        """Turn the pinned keys as if they stood `offset` positions later than they do.

        frequencies [D/2], radians per position; 0 <= offset <= `evicted`. Keys are stored after
        the rotary embedding, so this keeps the pinned rows next to the window when the rows
        between were dropped. Computed from the keys as first written: repeats add no error.
        Codes turn as the keys they stand for: the channels of a pair share a scale.
        """
        assert 0 <= offset <= self.evicted
        if not self._plain_keys:
            if not offset:  # the pinned rows may not be written yet
                return
            keys = {n: b.numpy() for n, b in self.buffers.items() if "key_" in n}
            self._plain_keys = {n: k[:, :, : self.pinned].astype("f4") for n, k in keys.items()}
        cos, sin = np.cos(offset * frequencies), np.sin(offset * frequencies)
        for name, plain in self._plain_keys.items():
            low, high = np.split(plain, 2, axis=-1)  # half-split rotation, contract A.3
            turned = np.concatenate((low * cos - high * sin, high * cos + low * sin), axis=-1)
            self.buffers[name].set_rows(self._as_stored(turned))

    def _as_stored(self, rows: NDArray[np.floating]) -> NDArray[Any]:
        """Rows in the dtype of the storage, rounded to the nearest code where that is integer."""
        dtype = np.dtype(self.layout.dtype)
        if np.issubdtype(dtype, np.integer):
            rows = np.clip(np.rint(rows), np.iinfo(dtype).min, np.iinfo(dtype).max)
        return rows.astype(dtype)

    def _sees_from(self, query: int) -> int:
        return max(self._first, query - self.window + 1)

    def _reserve(self, rows: int) -> None:
        """Grow the storage to hold slots 0 ... rows - 1, keeping what is in it."""
        if rows <= self._allocated:
            return
        grown = self._allocated
        while grown < rows:
            grown *= 2
        old = self.buffers
        self.buffers = self._allocate(min(grown, self.capacity))
        for name, buffer in old.items():
            self.buffers[name].set_rows(buffer.numpy())

    def _allocate(self, rows: int) -> dict[str, Buffer]:
        c = self.layout
        shape = (c.batch, c.heads, rows, c.head_dim)
        made = {name: Buffer(shape, c.dtype, c.device) for name in c.names}
        self._allocated = rows
        return made
