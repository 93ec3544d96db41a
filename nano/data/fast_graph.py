"""Rewrite the teacher's quantized convolutions into matrix products, which run much faster.

The published teacher holds its convolutions in this form, x and w in 8 bits:

    ConvInteger(x [1, C, T], w [O, C, K]) -> [1, O, T'] int32

ONNX Runtime has no fast kernel for that, but has one for MatMulInteger with int8 weights. So:

    x -> Transpose [1, T, C] -> Pad -> K shifted Slices, Concat [1, T', K*C]
      -> MatMulInteger(w [K*C, O]) -> Transpose [1, O, T']

The integers computed are the same, so the speech is too. Convolutions with a stride or with
groups are few and stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

UNSIGNED_OFFSET = 128  # from uint8 weights to int8 ones, which have the fast kernel


@dataclass
class _Rewriter:
    """Nodes and constants that replace one convolution."""

    prefix: str
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)

    def constant(self, name: str, value: NDArray[Any]) -> str:
        name = f"{self.prefix}/{name}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def add(self, op: str, inputs: list[str], output: str | None = None, **attributes: Any) -> str:
        output = output or f"{self.prefix}/{op}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))
        return output

    def integers(self, name: str, *values: int) -> str:
        return self.constant(name, np.array(values, np.int64))


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {item.name: helper.get_attribute_value(item) for item in node.attribute}


def _can_rewrite(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> bool:
    if node.op_type != "ConvInteger" or node.input[1] not in constants:
        return False
    settings = _attributes(node)
    plain = settings.get("group", 1) == 1 and settings.get("strides", [1]) == [1]
    zero_point = constants[node.input[3]]
    return plain and constants[node.input[1]].ndim == 3 and zero_point.size == 1


def _taps(out: _Rewriter, node: onnx.NodeProto, kernel: int) -> str:
    """The input of each output frame: [1, T', K*C], for x [1, C, T]."""
    settings = _attributes(node)
    (step,) = settings.get("dilations", [1])
    left, right = settings.get("pads", [0, 0])
    rows = out.add("Transpose", [node.input[0]], perm=[0, 2, 1])
    if left or right:
        pads = out.integers("pads", 0, left, 0, 0, right, 0)
        rows = out.add("Pad", [rows, pads, node.input[2]])  # a padded zero is the zero point
    if kernel == 1:
        return rows
    axis = out.integers("axis", 1)
    shifted = []
    for tap in range(kernel):
        after = (kernel - 1 - tap) * step
        start = out.integers(f"start_{tap}", tap * step)
        end = out.integers(f"end_{tap}", -after if after else np.iinfo(np.int64).max)
        shifted.append(out.add("Slice", [rows, start, end, axis]))
    return out.add("Concat", shifted, axis=2)


def _product(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> _Rewriter:
    """A ConvInteger as a matrix product, under the same output name."""
    out = _Rewriter(f"{node.name}/product")
    weight = constants[node.input[1]]  # [O, C, K]
    zero = constants[node.input[3]].reshape(())
    if weight.dtype == np.uint8:
        weight = (weight.astype(np.int16) - UNSIGNED_OFFSET).astype(np.int8)
        zero = (zero.astype(np.int16) - UNSIGNED_OFFSET).astype(np.int8)
    outputs, channels, kernel = weight.shape
    matrix = weight.transpose(2, 1, 0).reshape(kernel * channels, outputs)
    taps = _taps(out, node, kernel)
    inputs = [taps, out.constant("w", matrix), node.input[2], out.constant("zero", zero)]
    product = out.add("MatMulInteger", inputs)
    out.add("Transpose", [product], node.output[0], perm=[0, 2, 1])
    return out


def _rewritten(
    graph: onnx.GraphProto, constants: dict[str, NDArray[Any]]
) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        if _can_rewrite(node, constants):
            out = _product(node, constants)
            graph.initializer.extend(out.constants)
            yield from out.nodes
        else:
            yield node


def make_fast(source: Path, target: Path) -> None:
    """Write `source` (int8 ONNX) to `target`; same inputs, outputs and results, less time."""
    model = onnx.load(str(source))
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = list(_rewritten(model.graph, constants))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    partial = target.with_suffix(".part")
    onnx.save(model, str(partial))
    partial.replace(target)
