"""What a .onnx file says about itself, read without loading it into an engine library.

Only the protobuf wire format is walked, for inputs, outputs, operator domains, and the places
where external data lies. Message and field numbers are those of onnx.proto.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from .errors import CorruptFile
from .tensors import TensorSpec

Value = int | memoryview  # varint, or bytes of any other wire type

_DTYPES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16"}
_MAX_DEPTH = 64

# message -> {field: message inside}; fields that are not listed are skipped
_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse", 11: "input", 12: "output"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute", 7: "domain"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA = 13  # in a tensor: entries of key 1, value 2
_INITIALIZERS = {5: (8,), 15: (1, 8)}  # in a graph: where the name of a tensor, a sparse one, is


@dataclass(frozen=True, slots=True)
class OnnxFacts:
    """The parts of a model that decide whether it may be loaded."""

    inputs: list[TensorSpec] = field(default_factory=list)  # that must be fed
    outputs: list[TensorSpec] = field(default_factory=list)
    domains: set[str] = field(default_factory=set)  # of its operators; "" or absent is standard
    external: list[dict[str, str]] = field(default_factory=list)  # location, offset, length


def read_facts(path: Path) -> OnnxFacts:
    """Walk the file. Raises CorruptFile when it is not a well-formed model."""
    facts = OnnxFacts()
    try:
        _walk("model", memoryview(path.read_bytes()), facts, 0)
    except (ValueError, IndexError, KeyError) as error:
        raise CorruptFile(
            f"{path.name}: not a readable ONNX model ({error}); export the bundle again"
        ) from error
    return facts


def _walk(message: str, data: memoryview, facts: OnnxFacts, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise ValueError(f"nested more than {_MAX_DEPTH} deep")
    if message == "tensor" and (entries := _texts(data, _EXTERNAL_DATA)):
        facts.external.append(entries)
    children = _CHILDREN[message]
    whole = message == "graph" and depth == 1  # the model itself, not a graph inside an operator
    held = set(_initializers(data)) - {None} if whole else set()
    for number, value in _fields(data):
        child = children.get(number)
        if child is None:
            continue
        if child == "domain":
            facts.domains.add(_text(value))
        elif child not in ("input", "output"):
            _walk(child, _bytes(value), facts, depth + 1)
        elif whole and child == "output":
            facts.outputs.append(_spec(_bytes(value)))
        elif whole and _inner(_bytes(value), (1,)) not in held:
            facts.inputs.append(_spec(_bytes(value)))


def _initializers(graph: memoryview) -> Iterator[memoryview | None]:
    """Names of the weights inside: those that are inputs too (IR 3 needs it) are never fed."""
    for number, value in _fields(graph):
        if number in _INITIALIZERS:
            yield _inner(_bytes(value), _INITIALIZERS[number])


def _inner(data: memoryview, path: tuple[int, ...]) -> memoryview | None:
    """The bytes at the end of a way through messages, None where it breaks off."""
    value: Value | None = data
    for number in path:
        value = None if value is None else dict(_fields(_bytes(value))).get(number)
    return None if value is None else _bytes(value)


def _spec(data: memoryview) -> TensorSpec:
    """ValueInfo: name 1, type 2 > tensor 1 > (element type 1, shape 2 > dimensions 1)."""
    info = dict(_fields(data))
    tensor = dict(_fields(_bytes(dict(_fields(_bytes(info[2])))[1])))
    shape: list[int | str] = []
    for _, dimension in _fields(_bytes(tensor.get(2, memoryview(b"")))):
        size = dict(_fields(_bytes(dimension)))  # a number 1, or a symbol 2
        number = size.get(1)
        shape.append(number if isinstance(number, int) else _text(size.get(2, memoryview(b"?"))))
    element = tensor[1]
    if not isinstance(element, int) or element not in _DTYPES:
        raise ValueError(f"{_text(info[1])} has element type {element!r}")
    return TensorSpec(name=_text(info[1]), dtype=_DTYPES[element], shape=tuple(shape))


def _texts(data: memoryview, wanted: int) -> dict[str, str]:
    """The key-value entries of one repeated field."""
    entries: dict[str, str] = {}
    for value in (value for number, value in _fields(data) if number == wanted):
        pair = dict(_fields(_bytes(value)))
        key = _text(pair[1])
        if key in entries:  # parsers differ in which one counts
            raise ValueError(f"{key} is stated twice")
        entries[key] = _text(pair.get(2, memoryview(b"")))
    return entries


def _fields(data: memoryview) -> Iterator[tuple[int, Value]]:
    """Fields of one message: (number, value).

    Where parsers differ in what they read, one could be shown weights that another never sees: a
    tag of more than 32 bits is refused, and numbers of fixed width, which no field listed here
    has, are passed over like unknown fields.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at) if data[at] > 127 else (data[at], at + 1)
        number, wire = tag >> 3, tag & 7
        if not 1 <= number < 1 << 29:
            raise ValueError(f"field number {number} before byte {at}")
        if wire == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire == 2:
            size, at = _varint(data, at) if data[at] > 127 else (data[at], at + 1)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"wire type {wire} at byte {at}")
        if size > end - at:
            raise ValueError(f"field of {size} bytes at byte {at} passes the end")
        if wire == 2:
            yield number, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):  # ten bytes at most
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise ValueError(f"number without an end at byte {at}")


def _bytes(value: Value) -> memoryview:
    if isinstance(value, int):
        raise ValueError("a number where a message belongs")
    return value


def _text(value: Value) -> str:
    return bytes(_bytes(value)).decode()  # UnicodeDecodeError is a ValueError
