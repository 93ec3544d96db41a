"""The walker reads any file to facts or a typed error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, save
from tiny import attention_graph, model

from antiphon.runtime.backend import Engine
from antiphon.runtime.errors import CorruptFile
from antiphon.runtime.onnx_file import read_facts
from antiphon.runtime.tensors import TensorSpec


@given(content=st.binary(max_size=200))
def test_walking_any_bytes_ends_in_facts_or_a_typed_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.onnx"
    path.write_bytes(content)
    with contextlib.suppress(CorruptFile):
        read_facts(path)


def wrapped(field: int, data: bytes) -> bytes:
    """A protobuf field holding bytes."""
    size = len(data)
    return bytes([field << 3 | 2, size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + data


def test_nesting_has_an_end(tmp_path: Path) -> None:
    data = b""
    for _ in range(200):  # a graph in an attribute of a node of a graph
        data = wrapped(1, wrapped(5, wrapped(6, data)))
    (tmp_path / "deep.onnx").write_bytes(wrapped(7, data))
    with pytest.raises(CorruptFile, match="nested more than 64 deep"):
        read_facts(tmp_path / "deep.onnx")


def test_reads_what_the_engine_library_reads(tmp_path: Path) -> None:
    path = attention_graph(tmp_path / "attention.onnx", 4, 2, 8)
    facts, engine = read_facts(path), Engine.load(path)
    assert facts.inputs == list(engine.inputs.values())
    assert facts.outputs == list(engine.outputs.values())
    assert facts.inputs[1] == TensorSpec(name="mask", dtype="float32", shape=("S", "C"))
    assert facts.domains <= {""}
    assert not facts.external


def test_element_type_we_do_not_handle(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    save(model([], [info], []), tmp_path / "text.onnx")
    with pytest.raises(CorruptFile, match="x has element type 8"):
        read_facts(tmp_path / "text.onnx")
