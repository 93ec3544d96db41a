"""The constants of one graph: small ones inside NAME.onnx, the others in NAME.data beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper

from antiphon.quant.schemes import QuantError
from antiphon.runtime.errors import ConfigError

from .data_file import DataFile
from .matrix import Transposed

_INLINE_BYTES = 1024  # smaller ones stay in the .onnx, where shape inference can read them


class Constants:
    """Named tensors, stored as soon as they are given."""

    def __init__(self, path: Path) -> None:
        """For the graph at `path`, NAME.onnx."""
        self.path, self.data = path, DataFile(path.with_suffix(".data"))
        self._tensors: dict[str, TensorProto] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def add(self, name: str, array: NDArray[Any]) -> str:
        """Store an array in its dtype."""
        dtype = helper.np_dtype_to_tensor_dtype(array.dtype)
        return self._store(name, dtype, array.shape, np.ascontiguousarray(array))

    def stream(self, name: str, dtype: int, cells: Transposed) -> str:
        """Store the transpose of a matrix strip by strip, as the ONNX type `dtype`.

        Raises ConfigError naming graph and matrix where it cannot be encoded.
        """
        dims = cells.rows.shape[::-1]
        try:
            if cells.nbytes < _INLINE_BYTES:
                return self._store(name, dtype, dims, *(strip for _, strip in cells.strips()))
            tensor, offset = self._declare(name, dtype, dims), self.data.reserve(cells.nbytes)
            for at, strip in cells.strips():
                self.data.write_rows(offset + at, strip, cells.row_bytes)
        except QuantError as error:
            raise ConfigError(f"{self.path.stem}: {name}: {error}") from error
        self._refer(tensor, offset, cells.nbytes)
        return name

    def finish(self) -> list[TensorProto]:
        """All constants in the order they were given, after which NAME.data must not change."""
        if not self.data.size:
            self.data.path.unlink()
        return list(self._tensors.values())

    def _store(self, name: str, dtype: int, dims: Sequence[int], data: NDArray[Any]) -> str:
        tensor = self._declare(name, dtype, dims)
        if data.nbytes < _INLINE_BYTES:
            tensor.raw_data = data.tobytes()
        else:
            self._refer(tensor, self.data.append(data), data.nbytes)
        return name

    def _declare(self, name: str, dtype: int, dims: Sequence[int]) -> TensorProto:
        if name in self._tensors:
            raise ValueError(f"{self.path.name}: constant {name} stored twice")
        tensor = self._tensors[name] = TensorProto(name=name, data_type=dtype, dims=dims)
        return tensor

    def _refer(self, tensor: TensorProto, offset: int, length: int) -> None:
        entries = {"location": self.data.path.name, "offset": offset, "length": length}
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
