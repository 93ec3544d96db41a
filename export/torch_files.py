"""Files that `torch.save` wrote: a flat dict of tensors, found without PyTorch or `pickle`.

Since PyTorch 1.6 a zip archive: NAME/data.pkl describes the dict, NAME/data/KEY is one storage.
Before, a row of pickles (magic number, protocol, system, the dict, storage keys), then the
storages, each after 8 bytes of length. Tensors refer to storages by persistent ids.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import CorruptFile

from .pickle_values import Global, Opaque, Refused, read_pickle
from .tensor_files import ITEM_BYTES, OpenFile, Stored, TensorFile

MAX_FILE_BYTES = 4 << 30  # eight times the published flow
MAX_PICKLE_BYTES = 16 << 20  # of the published flow's thousand names: about 0.2 MB
NOT_WEIGHTS = ("epoch", "step")  # numbers of Python, NumPy or PyTorch (contract E.2)
_NUMPY = ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
MAGIC = 0x1950A86A20F9469CFC6C  # of the old layout, torch/serialization.py
MALFORMED = (  # what such a file can make the readers below raise
    *(ValueError, LookupError, TypeError, EOFError, OSError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, struct.error),
)
_NAMES = {"Float": "F32", "Half": "F16", "BFloat16": "BF16", "Double": "F64", "Long": "I64"}
_NAMES |= {"Int": "I32", "Short": "I16", "Char": "I8", "Byte": "U8", "Bool": "BOOL"}
STORAGES = {f"torch.{name}Storage": dtype for name, dtype in _NAMES.items()}


@dataclass(slots=True)
class _Storage:
    key: str
    dtype: str
    count: int  # values
    offset: int = -1  # of its first byte in the file


@dataclass(frozen=True, slots=True)
class _Tensor:
    storage: _Storage
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def open_torch(path: Path) -> TensorFile:
    """The tensors of a flat dict; `epoch` and `step` are dropped.

    Nothing in the file is executed. Raises CorruptFile for anything but whole tensors.
    """
    file = OpenFile(path)
    if file.size > MAX_FILE_BYTES:
        raise CorruptFile(
            f"{path}: {file.size} bytes, expected at most {MAX_FILE_BYTES}; is it the right file?"
        )
    try:
        return TensorFile(path, _tensors(file))
    except Refused as error:
        raise CorruptFile(
            f"{path}: holds more than weights: {error}. Nothing of it was run; download the file "
            "from its publisher again, and load it with no other tool"
        ) from error
    except MALFORMED as error:
        raise CorruptFile(
            f"{path}: not a whole file of tensors written by torch.save ({error}); download it "
            "again"
        ) from error


def _tensors(file: OpenFile) -> dict[str, Stored]:
    zipped = file.size >= 4 and file.read(0, 4) == b"PK\x03\x04"
    reader = _Reader()
    state = _from_zip(file, reader) if zipped else _from_row(file, reader)
    if not isinstance(state, dict) or not all(isinstance(name, str) for name in state):
        raise ValueError(f"holds {type(state).__name__}, expected a flat dict of tensors")
    found = {}
    for name, value in state.items():
        if name in NOT_WEIGHTS:
            continue
        if not isinstance(value, _Tensor):
            raise ValueError(f"{name} is {type(value).__name__}, expected a flat dict of tensors")
        found[name] = _placed(file, name, value)
    return found


def _from_zip(file: OpenFile, reader: _Reader) -> Any:
    with file.path.open("rb") as stream, zipfile.ZipFile(stream) as archive:
        members = {info.filename: info for info in archive.infolist()}
        described = [
            name for name in members if name.count("/") == 1 and name.endswith("/data.pkl")
        ]
        if len(described) != 1:
            raise ValueError("no data.pkl")
        folder = described[0].removesuffix("data.pkl")
        for name in (described[0], order := f"{folder}byteorder"):
            if name in members and members[name].file_size > MAX_PICKLE_BYTES:
                raise ValueError(f"{name} has {members[name].file_size} bytes")
        if order in members and archive.read(order) != b"little":
            raise ValueError(f"{order} is not little")
        state = reader.read(io.BytesIO(archive.read(described[0])))
    for storage in reader.storages.values():
        _place_in_zip(file, members[f"{folder}data/{storage.key}"], storage)
    return state


def _place_in_zip(file: OpenFile, info: zipfile.ZipInfo, storage: _Storage) -> None:
    """A member's bytes follow its own header: 30 bytes, its name, an extra field."""
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{info.filename} is compressed")
    if info.file_size < storage.count * ITEM_BYTES[storage.dtype]:
        raise ValueError(f"{info.filename} has {info.file_size} bytes")
    head = file.read(info.header_offset, 30)
    if head[:4] != b"PK\x03\x04":
        raise ValueError(f"no member at byte {info.header_offset}")
    name, extra = (int.from_bytes(head[at : at + 2], "little") for at in (26, 28))
    storage.offset = info.header_offset + 30 + name + extra


def _from_row(file: OpenFile, reader: _Reader) -> Any:
    """The layout before the zip archive."""
    stream = io.BytesIO(file.read(0, min(file.size, MAX_PICKLE_BYTES)))
    if reader.read(stream) != MAGIC:
        raise ValueError("no magic number")
    _protocol, system, state, keys = (reader.read(stream) for _ in range(4))
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise ValueError("byte order")
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("no list of storages")
    at = stream.tell()
    for key in keys:
        storage = reader.storages[key]
        count, storage.offset = int.from_bytes(file.read(at, 8), "little"), at + 8
        if count != storage.count:
            raise ValueError(f"storage {key} has {count} values, expected {storage.count}")
        at = storage.offset + count * ITEM_BYTES[storage.dtype]
    return state


def _placed(file: OpenFile, name: str, tensor: _Tensor) -> Stored:
    """Where the tensor lies, once every value of it is known to be inside the file."""
    storage, shape, strides = tensor.storage, tensor.shape, tensor.strides
    size = ITEM_BYTES[storage.dtype]
    last = tensor.first + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
    count = math.prod(shape)
    inside = count <= storage.count and (count == 0 or last < storage.count)
    end = storage.offset + storage.count * size
    if storage.offset < 0 or not inside or end > file.size:
        raise ValueError(f"{name} {list(shape)} passes the end of its storage or of the file")
    return Stored(file, storage.dtype, shape, storage.offset + tensor.first * size, strides)


class _Reader:
    """What the named things in a file of tensors stand for."""

    def __init__(self) -> None:
        self.storages: dict[str, _Storage] = {}
        self._calls: Mapping[str, Callable[..., Any]] = {
            "collections.OrderedDict": lambda items=(): dict(items),
            "torch._utils._rebuild_tensor": _tensor,
            "torch._utils._rebuild_tensor_v2": _tensor,
            "torch._utils._rebuild_parameter": _parameter,
            # a number of NumPy, nothing of which is made; its bytes are a text before protocol 3
            **dict.fromkeys((*_NUMPY, "_codecs.encode"), lambda *_: Opaque()),
        }

    def read(self, stream: io.BytesIO) -> Any:
        """The next pickle."""
        return read_pickle(stream, self._call, self._storage)

    def _call(self, named: Global, arguments: tuple[Any, ...]) -> Any:
        if named.name not in self._calls:
            raise Refused(f"it asks to call {named.name:.80}")
        return self._calls[named.name](*arguments)

    def _storage(self, identity: Any) -> _Storage:
        kind, storage_type, key, _, count, *_ = identity
        if kind != "storage" or not isinstance(storage_type, Global):
            raise ValueError("a persistent id that is no storage")
        if storage_type.name not in STORAGES:
            raise ValueError(f"a storage of type {storage_type.name:.80}")
        if type(count) is not int or count < 0 or not isinstance(key, str):
            raise ValueError("a storage without a key or a count")
        storage = _Storage(key, STORAGES[storage_type.name], count)
        if self.storages.setdefault(key, storage) != storage:
            raise ValueError(f"storage {key:.80} is described in two ways")
        return self.storages[key]


def _tensor(storage: Any, first: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """`torch._utils._rebuild_tensor`; whether it wants a gradient and its hooks are dropped."""
    numbers = (first, *shape, *strides)
    if not isinstance(storage, _Storage) or len(shape) != len(strides):
        raise ValueError("a tensor without a storage")
    if not all(type(n) is int and 0 <= n < 1 << 62 for n in numbers):
        raise ValueError("a tensor of impossible sizes")
    return _Tensor(storage, first, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> Any:
    """`torch.nn.Parameter` is its tensor."""
    return tensor
