"""The walker reads any file to facts or a typed error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, save
from tiny import attention_graph, floats, model

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


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("ir_version", [3, 8])
def test_a_weight_listed_as_input_is_not_fed(tmp_path: Path, ir_version: int, sparse: bool) -> None:
    """Files before IR 4 must list every weight so; the element type of a weight is its own."""
    kept = helper.make_tensor_value_info("c", TensorProto.DOUBLE, [4])
    constant = helper.make_tensor("c", TensorProto.DOUBLE, [4], [1.0] * 4)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4], [1.0] * 4)
    nodes = [
        helper.make_node("Add", ["x", "w"], ["sum"]),
        helper.make_node("Cast", ["c"], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["sum", "cast"], ["y"]),
    ]
    inputs = [floats("w", 4), floats("x", 4), kept]
    graph = helper.make_graph(nodes, "g", inputs, [floats("y", 4)], [constant])
    if sparse:
        places = helper.make_tensor("places", TensorProto.INT64, [4], range(4))
        graph.sparse_initializer.append(helper.make_sparse_tensor(weight, places, [4]))
    else:
        graph.initializer.append(weight)
    opset = [helper.make_opsetid("", 13)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=ir_version), tmp_path / "g.onnx")
    facts, engine = read_facts(tmp_path / "g.onnx"), Engine.load(tmp_path / "g.onnx")
    spec = TensorSpec(name="x", dtype="float32", shape=(4,))
    assert facts.inputs == list(engine.inputs.values()) == [spec]


def tagged(tag: bytes, data: bytes) -> bytes:
    """A protobuf field with this tag, however it is spelled."""
    size = len(data)
    return tag + bytes([size & 127 | 128, size >> 7 & 127 | 128, size >> 14]) + data


# 1 << 32 | 58: the engine library reads the lower 32 bits, field 7, the graph
LONG_TAG = b"\xba\x80\x80\x80\x10"


@pytest.mark.parametrize("tag", [LONG_TAG, b"\x02", b"\x82\x80\x00", b"\xff" * 9 + b"\x01"])
def test_tags_that_parsers_read_differently_are_refused(tmp_path: Path, tag: bytes) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="unlisted.bin")
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    hidden = model(nodes, [floats("x", 4)], [floats("y", 4)], [weight])
    graph = hidden.graph.SerializeToString()
    hidden.ClearField("graph")
    path = tmp_path / "hidden.onnx"
    path.write_bytes(hidden.SerializeToString() + tagged(tag, graph))
    with pytest.raises(CorruptFile, match="field number"):
        read_facts(path)


def test_a_location_cannot_hide_behind_a_field_that_the_library_skips(tmp_path: Path) -> None:
    """The last value counts, but one of fixed width is no value of a string."""
    entry = b"\x0a\x08location" + b"\x12\x0bunlisted.da" + b"\x15w.da"
    weight = b"\x6a" + bytes([len(entry)]) + entry
    (tmp_path / "two.onnx").write_bytes(wrapped(7, wrapped(5, weight)))
    assert read_facts(tmp_path / "two.onnx").external == [{"location": "unlisted.da"}]


def test_element_type_we_do_not_handle(tmp_path: Path) -> None:
    info = helper.make_tensor_value_info("x", TensorProto.STRING, [1])
    save(model([], [info], []), tmp_path / "text.onnx")
    with pytest.raises(CorruptFile, match="x has element type 8"):
        read_facts(tmp_path / "text.onnx")
