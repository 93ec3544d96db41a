"""What calibration saw: samples of the inputs of every matrix of the language model, on disk.

    DIR/statistics.json                    whose they are, and which layers are finished
    DIR/model.shared_block.layers.0.npz    qkv, o, gate_up, down    float16 [N, I]: the sample
    DIR/text_lm_head.npz                   head                     NAME_peak float32 [I]: the
    ...                                                             largest |x| of all rows seen
                                           key_peak, value_peak     float32 [G, D]: the same of
                                                                    what the caches would hold

Matrices that read the same input share its sample. Rows are stored in units of a power of two that
keeps them inside float16; nothing that is computed from them depends on a common factor.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from antiphon.quant import kv_cache
from antiphon.quant.schemes import QuantError
from antiphon.runtime.errors import ConfigError, CorruptFile
from antiphon.runtime.strict import parse

from .checkpoint import Checkpoint

INDEX = "statistics.json"
READERS = {  # of each input of a layer: the matrices that multiply it
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
HEADS = ("text_lm_head", "audio_lm_head")
_INPUT_OF = {reader: name for name, readers in READERS.items() for reader in readers}
_DAMAGE = (OSError, KeyError, ValueError, TypeError, EOFError)  # what np.load makes of it
_HALF_MAX = 32768.0  # the largest sampled value is brought below it
_AGAIN = "calibrate again, into another folder"
_MAKE = "make those of this one, in another folder: antiphon calibrate CHECKPOINT DIR"

Floats = NDArray[np.float32]


class Inputs(NamedTuple):
    """What was seen of one input."""

    rows: NDArray[np.float16]  # [N, I], times a common power of two
    peak: Floats  # [I], of all rows seen


class CachePeaks(NamedTuple):
    """Largest magnitudes of a layer's keys and values [G, D]; see `quant.kv_cache.peaks`."""

    key: Floats
    value: Floats

    @classmethod
    def none(cls, groups: int, head_dim: int) -> Self:
        """Before any row was seen."""
        return cls(*np.zeros((2, groups, head_dim), np.float32))

    def joined(self, keys: Floats, values: Floats) -> CachePeaks:
        """With rows [B, G, S, D] seen besides. Raises ConfigError unless all are finite."""
        try:
            new = kv_cache.peaks(keys, rotary=True), kv_cache.peaks(values)
        except QuantError as error:
            raise ConfigError(
                f"{error}; the checkpoint is damaged, or not of this model"
            ) from error
        return CachePeaks(*(np.maximum(a, b) for a, b in zip(self, new, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """What statistics.json states."""

    checkpoint: str  # see `fingerprint`
    questions: str  # a digest of what was asked, of whom, how often
    rows: int  # of dialogues, all of which count for the peaks
    layers: tuple[str, ...] = ()  # finished ones


class Statistics:
    """The finished statistics of one checkpoint, read one input at a time."""

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder, self.index = folder, index

    @classmethod
    def open(cls, folder: Path, source: Checkpoint) -> Self:
        """Open DIR. Raises ConfigError unless it is finished and of this checkpoint."""
        index = read_index(folder)
        if index is None:
            raise ConfigError(f"{folder}: no {INDEX} of a calibration there; {_MAKE}")
        if index.checkpoint != fingerprint(source):
            raise ConfigError(f"{folder}: statistics of another checkpoint; {_MAKE}")
        if missing := [n for n in layer_names(source) if n not in index.layers]:
            raise ConfigError(
                f"{folder}: not finished, {missing[0]} is missing; run the antiphon calibrate that "
                "began it again, with the same options: it goes on"
            )
        return cls(folder, index)

    def inputs(self, tensor: str) -> Inputs:
        """Inputs of a matrix such as "model.text_block.layers.0.mlp.up_proj.weight"."""
        layer, name = input_of(tensor)
        found = Inputs(*self._arrays(layer, name, f"{name}_peak"))
        if found.rows.ndim != 2 or found.rows.shape[1:] != found.peak.shape or not len(found.rows):
            raise CorruptFile(f"{layer}.npz: {name} is {found.rows.shape}; {_AGAIN}")
        return found

    def cache_peaks(self, layer: str, shape: tuple[int, int]) -> CachePeaks:
        """Peaks [G, D] of the keys and values of a layer such as "model.text_block.layers.0"."""
        found = CachePeaks(*self._arrays(layer, "key_peak", "value_peak"))
        shapes = [s.shape for s in found if np.isfinite(s).all() and s.min(initial=0) >= 0]
        if shapes != 2 * [shape]:
            raise CorruptFile(f"{layer}.npz: peaks {shapes}, expected two of {shape}; {_AGAIN}")
        return found

    def _arrays(self, layer: str, *names: str) -> list[NDArray[Any]]:
        return read_arrays(self.folder / f"{layer}.npz", names)


def read_arrays(path: Path, names: Sequence[str] = ()) -> list[NDArray[Any]]:
    """Arrays of a file that a calibration wrote, by default all in the order of their names.

    Raises CorruptFile unless they are there, and numbers.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            arrays = [stored[name] for name in names or sorted(stored)]
    except (*_DAMAGE, zipfile.BadZipFile) as error:
        raise CorruptFile(f"{path}: {error or 'empty'}; {_AGAIN}") from error
    if any(array.dtype.kind not in "fi" for array in arrays):
        raise CorruptFile(f"{path}: holds something else than numbers; {_AGAIN}")
    return arrays


def input_of(tensor: str) -> tuple[str, str]:
    """Where the sample of a matrix's input is: layer, and name of the input."""
    stem = tensor.removesuffix(".weight")
    if stem in HEADS:
        return stem, "head"
    *layer, module, matrix = stem.split(".")
    return ".".join(layer), _INPUT_OF[f"{module}.{matrix}"]


def is_calibrated(tensor: str) -> bool:
    """Whether statistics speak of the input of this weight."""
    return tensor.endswith("_lm_head.weight") or any(
        tensor.endswith(f".{reader}.weight") for reader in _INPUT_OF
    )


def layer_names(source: Checkpoint) -> list[str]:
    """All layers in the order they are run, and the heads."""
    c = source.lm_config
    depths = {
        "shared": c.num_shared_layers,
        "text": c.num_modality_layers,
        "audio": c.num_modality_layers,
    }
    names = []
    for block, depth in depths.items():
        names += [f"model.{block}_block.layers.{i}" for i in range(depth)]
        names += [] if block == "shared" else [f"{block}_lm_head"]
    return names


def save_layer(
    folder: Path, layer: str, inputs: Mapping[str, Inputs], caches: CachePeaks | None
) -> None:
    """Write what was seen of one layer, whole or not at all; a head has no caches."""
    arrays: dict[str, NDArray[Any]] = {name: found.rows for name, found in inputs.items()}
    arrays |= {f"{name}_peak": found.peak for name, found in inputs.items()}
    if caches is not None:
        arrays |= {"key_peak": caches.key, "value_peak": caches.value}
    new = folder / f"{layer}.new"
    with new.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
        file.flush()
        os.fsync(file.fileno())
    new.replace(folder / f"{layer}.npz")


def to_half(rows: Floats) -> NDArray[np.float16]:
    """Rows times a power of two, so that all of them are numbers of float16."""
    largest = float(np.abs(rows).max(initial=0))
    shrink = max(0, int(np.ceil(np.log2(max(largest, 1) / _HALF_MAX))))
    return np.ldexp(rows, -shrink).astype(np.float16)


def read_index(folder: Path) -> Index | None:
    """What the folder states, None where it states nothing that can be read."""
    try:
        raw = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        index: Index = parse(Index, raw, INDEX)
    except (OSError, ValueError, RecursionError, CorruptFile):
        return None
    return index


def save_index(folder: Path, index: Index) -> None:
    """Write statistics.json, whole or not at all."""
    new = folder / f"{INDEX}.new"
    new.write_text(json.dumps(asdict(index), indent=1) + "\n", encoding="utf-8")
    new.replace(folder / INDEX)


def fingerprint(source: Checkpoint) -> str:
    """Tells checkpoints of one architecture apart: config, shapes, and the start of every tensor.

    Of a matrix one row is read: 446 reads at the real size.
    """
    found = sha256((source.directory / "MOSS-Speech" / "config.json").read_bytes())
    for name, shape in sorted(source.shapes("lm").items()):
        found.update(f"{name} {list(shape)}".encode())
        found.update(np.ascontiguousarray(source.read_rows("lm", name, 0, 1)).data)
    return f"sha256 {found.hexdigest()}"
