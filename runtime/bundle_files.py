"""Array files of a bundle: embedding tables, voices, noise. Sizes are checked, pickles refused."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .embeddings import Table
from .errors import CorruptFile
from .manifest import FlowSizes, TableEntry

_MAX_VOICE_BYTES = 16 << 20  # five minutes of mel are 4.8 MB


@dataclass(frozen=True, slots=True)
class Voice:
    """A voice prompt (contract E.8)."""

    prompt_codes: NDArray[np.int64]  # [P]
    prompt_mel: NDArray[np.float32]  # [M, 4P]
    embedding: NDArray[np.float32]  # [192]


def read_array(path: Path) -> NDArray[Any]:
    """A .npy file, memory-mapped."""
    try:
        mapped = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a strange header can raise almost anything
        raise CorruptFile(
            f"{path.name}: not an array ({error}); export the bundle again"
        ) from error
    return np.asarray(mapped)  # the same memory, without a memmap's slow indexing


def read_table(folder: Path, entry: TableEntry, *, rows: int, hidden_size: int) -> Table:
    """An embedding table of `rows` rows, with scales exactly if it is int8."""
    table = Table(
        read_array(folder / entry.rows.file),
        None if entry.scales is None else read_array(folder / entry.scales.file),
    )
    kinds = ("int8",) if table.scales is not None else ("float32", "float16")
    got = f"{table.rows.dtype}{list(table.rows.shape)}"
    if table.rows.dtype.name not in kinds or table.rows.shape != (rows, hidden_size):
        raise CorruptFile(
            f"{entry.rows.file}: {got}, expected {' or '.join(kinds)}[{rows}, {hidden_size}]; "
            "export the bundle again"
        )
    if entry.scales is not None and table.scales is not None:
        _expect(entry.scales.file, "scales", table.scales, "float32", (rows,))
    return table


def read_voice(path: Path, sizes: FlowSizes, code_count: int) -> Voice:
    """Read and check a voice prompt."""
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
        if unpacked > _MAX_VOICE_BYTES:
            raise ValueError(f"{unpacked} bytes unpacked, expected at most {_MAX_VOICE_BYTES}")
        with np.load(path, allow_pickle=False) as arrays:
            voice = Voice(**{name: arrays[name] for name in arrays.files})
    except Exception as error:  # a damaged zip can raise almost anything
        raise CorruptFile(f"{path.name}: not a voice ({error}); enrol it again") from error
    count = len(voice.prompt_codes) if voice.prompt_codes.ndim == 1 else -1
    _expect(path.name, "prompt_codes", voice.prompt_codes, "int64", (count,))
    mel = (sizes.mel_bins, sizes.mel_per_token * count)
    _expect(path.name, "prompt_mel", voice.prompt_mel, "float32", mel)
    _expect(path.name, "embedding", voice.embedding, "float32", (sizes.speaker_dim,))
    if not np.isin(voice.prompt_codes, np.arange(code_count)).all():
        raise CorruptFile(f"{path.name}: codes outside 0 … {code_count - 1}; enrol it again")
    if not (np.isfinite(voice.prompt_mel).all() and np.isfinite(voice.embedding).all()):
        raise CorruptFile(f"{path.name}: holds values that are not finite; enrol it again")
    return voice


def _expect(file: str, name: str, array: NDArray[Any], dtype: str, shape: tuple[int, ...]) -> None:
    if array.dtype != dtype or array.shape != shape:
        raise CorruptFile(
            f"{file}: {name} is {array.dtype}{list(array.shape)}, expected {dtype}{list(shape)}; "
            "export the bundle again"
        )
