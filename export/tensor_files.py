"""Checkpoint files on disk, read one tensor at a time: safetensors shards and torch.save dicts."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from antiphon.runtime.errors import CorruptFile

Weights = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]

MAX_JSON_BYTES = 64 << 20  # the published tokenizer.json is a sixth of it
WIDE_ENOUGH = (torch.float32, torch.float16, torch.bfloat16)


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


def as_float32(tensor: Any, path: Path, name: str) -> Weights:
    """A private float32 copy. Raises CorruptFile unless the tensor is F32, F16 or BF16."""
    if not isinstance(tensor, Tensor) or tensor.dtype not in WIDE_ENOUGH:
        got = getattr(tensor, "dtype", type(tensor).__name__)
        raise CorruptFile(f"{path}: {name} is {got}, expected F32, F16 or BF16")
    values: Weights = tensor.to(torch.float32, copy=True).numpy()
    return values


class TensorFile(Protocol):
    """Named tensors whose shapes are known before any is read."""

    path: Path
    shapes: Shapes

    def read(self, name: str) -> Weights:
        """The tensor `name` as float32."""
        ...


class Shards:
    """Tensors of one or more safetensors files, memory-mapped."""

    def __init__(self, path: Path, files: Mapping[str, Path]) -> None:
        """`files` says where each tensor is; `path` names the whole in messages."""
        self.path = path
        self._files = files
        self._stack = ExitStack()
        self._open = {file: self._enter(file) for file in sorted(set(files.values()))}
        self.shapes: Shapes = {name: self._shape(name, file) for name, file in files.items()}

    @classmethod
    def single(cls, path: Path) -> Shards:
        """All tensors of one file."""
        with ExitStack() as stack:
            names = list(_open_safetensors(path, stack).keys())
        return cls(path, dict.fromkeys(names, path))

    @classmethod
    def indexed(cls, folder: Path) -> Shards:
        """All tensors of `model.safetensors.index.json`, or of `model.safetensors` without one."""
        index = folder / "model.safetensors.index.json"
        if not index.exists():
            return cls.single(folder / "model.safetensors")
        weight_map = read_json(index).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise CorruptFile(f"{index}: no weight_map; download it again")
        for name, file in weight_map.items():
            if not isinstance(file, str) or Path(file).name != file or "\\" in file:
                raise CorruptFile(
                    f"{index}: {name} is said to be in {file!r}, expected a file beside the index"
                )
        return cls(index, {name: folder / file for name, file in weight_map.items()})

    def _enter(self, path: Path) -> Any:
        return _open_safetensors(path, self._stack)

    def _shape(self, name: str, file: Path) -> tuple[int, ...]:
        try:
            return tuple(self._open[file].get_slice(name).get_shape())
        except SafetensorError:
            raise CorruptFile(f"{file}: {name} is missing although {self.path} says so") from None

    def read(self, name: str) -> Weights:
        """The tensor `name` as float32; only its own pages of the file are read."""
        file = self._files[name]
        return as_float32(self._open[file].get_tensor(name), file, name)


class PickledTensors:
    """A flat dict written by `torch.save`; `epoch` and `step` are dropped (contract E.2)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        state = _load_pickled(path)
        self._state = {name: v for name, v in state.items() if name not in ("epoch", "step")}
        for name, value in self._state.items():
            if not isinstance(value, Tensor):
                raise CorruptFile(
                    f"{path}: {name} is {type(value).__name__}, expected a flat dict of tensors"
                )
        self.shapes: Shapes = {name: tuple(v.shape) for name, v in self._state.items()}

    def rename(self, names: Mapping[str, str]) -> None:
        """Give tensors other names: `names` maps stored to wanted spelling."""
        self._state = {names.get(name, name): value for name, value in self._state.items()}
        self.shapes = {name: tuple(v.shape) for name, v in self._state.items()}

    def read(self, name: str) -> Weights:
        """The tensor `name` as float32."""
        return as_float32(self._state[name], self.path, name)


def _open_safetensors(path: Path, stack: ExitStack) -> Any:
    if not path.is_file():
        raise CorruptFile(f"{path}: missing; is the checkpoint complete?")
    try:
        return stack.enter_context(safe_open(path, framework="pt"))
    except (SafetensorError, OSError) as error:
        raise CorruptFile(
            f"{path}: not a whole safetensors file ({error}); download it again"
        ) from error


def _load_pickled(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CorruptFile(f"{path}: missing; is the checkpoint complete?")
    try:  # a hostile pickle can raise anything; weights_only runs none of its code
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except Exception as error:
        raise CorruptFile(
            f"{path}: not a file of tensors written by torch.save ({error}); download it again"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise CorruptFile(f"{path}: holds {type(state).__name__}, expected a flat dict of tensors")
    return state
