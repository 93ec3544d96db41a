"""safetensors files and sets of shards: headers are read and checked, data is left on disk.

Format: 8 bytes of length, that many bytes of JSON, then the tensors without gaps or overlaps.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import CorruptFile

from .tensor_files import ITEM_BYTES, OpenFile, Stored, TensorFile, read_json

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
INDEX, WHOLE = "model.safetensors.index.json", "model.safetensors"


def open_safetensors(path: Path) -> TensorFile:
    """All tensors of one file. Raises CorruptFile when it is missing, truncated or malformed."""
    file = OpenFile(path)
    try:
        return TensorFile(path, dict(_entries(file)))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptFile(
            f"{path}: not a whole safetensors file ({error}); download it again"
        ) from error


def open_shards(folder: Path) -> TensorFile:
    """All tensors of `model.safetensors.index.json`, or of `model.safetensors` without one.

    Raises CorruptFile naming the index or the shard: one that is absent, is no whole file, or does
    not hold what the index says.
    """
    index = folder / INDEX
    if not index.exists():
        if any(folder.glob("model-*-of-*.safetensors")) and not (folder / WHOLE).exists():
            raise CorruptFile(f"{index}: missing, though its shards are here; download it too")
        return open_safetensors(folder / WHOLE)
    where = weight_map(index)
    shards = {name: open_safetensors(folder / name) for name in sorted(set(where.values()))}
    for name, file in where.items():
        if name not in shards[file].tensors:
            raise CorruptFile(
                f"{folder / file}: {name} is missing although {index.name} says that it is there; "
                "the files belong to different versions, download them again"
            )
    return TensorFile(index, {name: shards[file].tensors[name] for name, file in where.items()})


def weight_map(index: Path) -> dict[str, str]:
    """Tensor -> name of its shard, as the index says. Raises CorruptFile."""
    where = read_json(index).get("weight_map")
    if not isinstance(where, dict) or not where:
        raise CorruptFile(f"{index}: no weight_map; download it again")
    for name, file in where.items():
        if not isinstance(file, str) or Path(file).name != file or "\\" in file or "\0" in file:
            raise CorruptFile(
                f"{index}: {name} is said to be in {file!r:.80}, expected a file beside the index"
            )
    return where


def _entries(file: OpenFile) -> Iterator[tuple[str, Stored]]:
    """Tensors in the order they lie in; ValueError where the header cannot be true."""
    if file.size < 8:
        raise ValueError(f"{file.size} bytes")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > min(MAX_HEADER_BYTES, file.size - 8):
        raise ValueError(f"a header of {length} bytes in a file of {file.size}")
    header = json.loads(file.read(8, length), object_pairs_hook=_unique)
    if not isinstance(header, dict):
        raise ValueError(f"its header is a JSON {type(header).__name__}")
    header.pop("__metadata__", None)
    at, start = 0, 8 + length
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        stored, end = _stored(file, entry, start)
        if stored.offset != start + at:
            raise ValueError(f"{name} begins at byte {stored.offset}, expected {start + at}")
        if stored.dtype in ITEM_BYTES and stored.offset + stored.nbytes != start + end:
            raise ValueError(f"{name} {list(stored.shape)} does not take {end - at} bytes")
        at = end
        yield name, stored
    if start + at != file.size:
        raise ValueError(f"{file.size} bytes long, its header says {start + at}")


def _stored(file: OpenFile, entry: dict[str, Any], start: int) -> tuple[Stored, int]:
    dtype, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not all(
        type(n) is int and n >= 0 for n in (*shape, begin, end)
    ):
        raise ValueError(f"an entry {entry!r:.80}")
    if begin > end or math.prod(shape) > file.size * 8:
        raise ValueError(f"an entry {entry!r:.80}")
    return Stored(file, dtype, tuple(shape), start + begin), end


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is stated twice")
    return found
