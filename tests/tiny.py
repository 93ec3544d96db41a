"""Tiny graphs that several tests share."""

from __future__ import annotations

from pathlib import Path

from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, save

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def model(
    nodes: list[NodeProto],
    inputs: list[ValueInfoProto],
    outputs: list[ValueInfoProto],
    initializers: list[TensorProto] | None = None,
) -> ModelProto:
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, initializers or [])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


def floats(name: str, *shape: int | str) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, FLOAT, shape)


def attention_graph(path: Path, heads: int, groups: int, dim: int) -> Path:
    """`y = attention(q, cache of k and v)`: the cache part of every engine, without weights."""
    nodes = [
        helper.make_node(
            "TensorScatter", [f"{n}_0", n, "write_index"], [f"{n}_0_out"], mode="linear", axis=2
        )
        for n in ("key", "value")
    ]
    nodes.append(helper.make_node("Attention", ["q", "key_0_out", "value_0_out", "mask"], ["y"]))
    cache = [1, groups, "C", dim]
    inputs = [floats("q", 1, heads, "S", dim), floats("mask", "S", "C")]
    inputs += [floats(n, 1, groups, "S", dim) for n in ("key", "value")]
    inputs += [helper.make_tensor_value_info("write_index", INT64, [1])]
    inputs += [floats(f"{n}_0", *cache) for n in ("key", "value")]
    outputs = [floats("y", 1, heads, "S", dim)]
    outputs += [floats(f"{n}_0_out", *cache) for n in ("key", "value")]
    save(model(nodes, inputs, outputs), path)
    return path
