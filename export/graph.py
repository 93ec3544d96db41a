"""Write ONNX graphs in the portable dialect, weights streamed to one external data file.

Dialect: opset 24, standard operators only, float32 activations, additive masks, TensorScatter in
linear mode (TensorRT knows no circular one). A quantized matrix is DequantizeLinear -> MatMul,
which ONNX Runtime fuses into its integer kernels by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import ArrayLike, DTypeLike
from onnx import TensorProto, helper

from antiphon.quant.schemes import FP32, Scheme
from antiphon.runtime.errors import ConfigError

from .constants import Constants
from .matrix import Floats, Matrix, Rows, as_rows, coded, fits_half, floats

OPSET = 24
IR_VERSION = 11
END = int(np.iinfo(np.int64).max)  # of a slice that runs to the end

Dim = int | str


class GraphBuilder:
    """One graph under construction. Tensors are referred to by name.

    `path` is NAME.onnx; its weights go to NAME.data beside it as soon as they are given: a matrix
    that is read by rows is never whole in memory. jobs: threads that convert one.
    """

    def __init__(self, path: Path, *, jobs: int = 1) -> None:
        self.path, self.jobs = path, jobs
        self._constants = Constants(path)
        self._nodes: list[onnx.NodeProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._names: dict[str, int] = {}

    # inputs, outputs, nodes

    def input(self, name: str, dtype: DTypeLike, shape: Sequence[Dim]) -> str:
        """Declare an input; dimensions given as text are symbolic."""
        self._inputs.append(_value_info(name, dtype, shape))
        return name

    def output(self, name: str, dtype: DTypeLike, shape: Sequence[Dim], source: str = "") -> str:
        """Declare an output; `source` is copied to it unless a node already writes `name`."""
        if source and source != name:
            self._nodes.append(helper.make_node("Identity", [source], [name], f"{name}/Identity"))
        self._outputs.append(_value_info(name, dtype, shape))
        return name

    def op(self, op_type: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node with one output and return its name; "" stands for an absent input.

        name: the output's name, used as it is; without it a fresh one is made.
        """
        out = name or self._fresh(op_type)
        self._nodes.append(helper.make_node(op_type, inputs, [out], out, **attributes))
        return out

    def ops(self, op_type: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Append a node with several outputs."""
        name = self._fresh(op_type)
        names = [f"{name}.{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(op_type, inputs, names, name, **attributes))
        return names

    def _fresh(self, stem: str) -> str:
        self._names[stem] = self._names.get(stem, -1) + 1
        return f"{stem}_{self._names[stem]}"

    # constants

    def const(self, name: str, value: ArrayLike) -> str:
        """Store an array as it is; kept in its dtype (Python floats become float32)."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        return self._constants.add(name, array)

    def ints(self, *values: int) -> str:
        """A constant int64 vector; equal ones are shared."""
        name = "ints/" + ",".join(map(str, values))
        return name if name in self._constants else self.const(name, np.array(values, np.int64))

    def scalar(self, value: float) -> str:
        """A constant float32 scalar; equal ones are shared."""
        name = f"scalar/{value!r}"
        return name if name in self._constants else self.const(name, np.float32(value))

    def weight(self, name: str, value: Floats, *, half: bool = False) -> str:
        """Store a weight that is not quantized: as float16 if asked to, or if nothing is lost.

        ONNX Runtime folds the Cast when it loads the graph: float16 costs nothing later.
        """
        with np.errstate(over="ignore"):
            small = value.astype(np.float16)
        if not half and not np.array_equal(small, value):
            return self.const(name, value.astype(np.float32, copy=False))
        if not np.isfinite(small).all():
            raise ConfigError(f"{self.path.stem}: {name} is too large for float16; keep it float32")
        return self._cast(name, self.const(f"{name}.half", small))

    def _cast(self, name: str, stored: str) -> str:
        return self.op("Cast", stored, name=name, to=TensorProto.FLOAT)

    # layers

    def linear(
        self,
        x: str,
        name: str,
        weight: Matrix,
        bias: Floats | None = None,
        scheme: Scheme = FP32,
        method: str = "rtn",
    ) -> str:
        """x [..., I] -> [..., O] with weight [O, I], stored by `scheme`, its codes by `method`."""
        rows = as_rows(weight)
        if scheme.quantized:
            matrix = self._dequantized(name, rows, scheme.fit(rows.shape[1]), method)
        else:
            matrix = self._float_matrix(f"{name}.weight", rows, half=scheme.bits == 16)
        y = self.op("MatMul", x, matrix, name=f"{name}/MatMul")
        if bias is None:
            return y
        return self.op("Add", y, self.const(f"{name}.bias", bias), name=f"{name}/Add")

    def _float_matrix(self, name: str, rows: Rows, *, half: bool) -> str:
        """The transpose of a matrix, stored as `weight` does."""
        if half or fits_half(rows):
            cells = floats(rows, np.float16, self.jobs)
            return self._cast(
                name, self._constants.stream(f"{name}.half", TensorProto.FLOAT16, cells)
            )
        return self._constants.stream(name, TensorProto.FLOAT, floats(rows, np.float32, self.jobs))

    def _dequantized(self, name: str, rows: Rows, scheme: Scheme, method: str) -> str:
        """DequantizeLinear of a matrix, stored inputs first: [I, O] with scales [I/g, O] or [O]."""
        dtype = TensorProto.INT4 if scheme.bits == 4 else TensorProto.INT8
        if scheme.floating:
            dtype = TensorProto.FLOAT8E4M3FN
        cells, scales = coded(rows, scheme, method, self.jobs)
        stored = self._constants.stream(f"{name}.codes", dtype, cells)
        attributes: dict[str, int] = {"axis": 1}
        if scheme.block_size:
            attributes = {"axis": 0, "block_size": scheme.block_size}
        else:
            scales = scales[0]
        kept = self.const(f"{name}.scales", scales)
        return self.op("DequantizeLinear", stored, kept, name=f"{name}.weight", **attributes)

    def layer_norm(self, x: str, name: str, weight: Floats, bias: Floats, eps: float = 1e-5) -> str:
        """LayerNorm over the last axis."""
        w, b = self.const(f"{name}.weight", weight), self.const(f"{name}.bias", bias)
        return self.op("LayerNormalization", x, w, b, name=f"{name}/out", axis=-1, epsilon=eps)

    def rms_norm(self, x: str, name: str, weight: Floats, eps: float) -> str:
        """RMSNorm over the last axis."""
        w = self.const(f"{name}.weight", weight)
        return self.op("RMSNormalization", x, w, name=f"{name}/out", axis=-1, epsilon=float(eps))

    def split_heads(self, x: str, heads: int, head_dim: int) -> str:
        """[B, T, H·D] -> [B, H, T, D]."""
        return self.transpose(self.reshape(x, 0, 0, heads, head_dim), 0, 2, 1, 3)

    def merge_heads(self, x: str, width: int) -> str:
        """[B, H, T, D] -> [B, T, H·D]."""
        return self.reshape(self.transpose(x, 0, 2, 1, 3), 0, 0, width)

    def silu(self, x: str) -> str:
        """x · sigmoid(x)."""
        return self.op("Mul", x, self.op("Sigmoid", x))

    # shapes

    def reshape(self, x: str, *shape: int) -> str:
        """0 keeps a dimension, -1 is inferred."""
        return self.op("Reshape", x, self.ints(*shape))

    def transpose(self, x: str, *perm: int) -> str:
        """Axis i of the result is axis perm[i] of x."""
        return self.op("Transpose", x, perm=perm)

    def concat(self, axis: int, *xs: str) -> str:
        """Join along one axis."""
        return self.op("Concat", *xs, axis=axis)

    def slice(self, x: str, axis: int, start: int | str, end: int | str) -> str:
        """x[start:end] along one axis; a bound is a number or the name of an int64 [1] tensor."""
        lo, hi = (v if isinstance(v, str) else self.ints(v) for v in (start, end))
        return self.op("Slice", x, lo, hi, self.ints(axis))

    def tail(self, x: str, axis: int, count: int) -> str:
        """The last `count` entries along one axis."""
        return self.slice(x, axis, -count, END)

    def size(self, x: str, axis: int) -> str:
        """int64 [1]: length of one axis."""
        return self.op("Shape", x, start=axis, end=axis + 1)

    # writing

    def save(self) -> Path:
        """Write NAME.onnx, after which NAME.data must not change. Returns the path."""
        graph = helper.make_graph(
            self._nodes,
            self.path.stem,
            self._inputs,
            self._outputs,
            self._constants.finish(),
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="antiphon"
        )
        self.path.write_bytes(model.SerializeToString())
        return self.path


def _value_info(name: str, dtype: DTypeLike, shape: Sequence[Dim]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), list(shape)
    )
