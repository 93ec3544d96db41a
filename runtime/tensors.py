"""What an engine says about one of its inputs or outputs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """Name, numpy dtype name and shape; a symbolic dimension is a string."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
