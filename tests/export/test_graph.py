"""The graph builder: what it stores, and that engines compute what it says."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from antiphon.export.graph import GraphBuilder
from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.schemes import FP16, FP32, INT4_B32, INT8, SCHEMES
from antiphon.runtime.backend import Engine
from antiphon.runtime.errors import ConfigError

CODED = [s for s in SCHEMES.values() if s.quantized and not s.floating]
RNG = np.random.default_rng(5)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def data_bytes(g):
    return g.path.with_suffix(".data").stat().st_size


def computed(g, outputs, feeds):
    """Declare outputs of rank 3, check the file, run it exactly."""
    for name, dtype in outputs.items():
        tensor = g.op("Identity", name, name=f"out/{name}")
        g.output(tensor, dtype, [f"{name}.{i}" for i in range(3)])
    onnx.checker.check_model(str(g.save()), full_check=True)
    answer = Engine.load(g.path, exact=True).run(feeds)
    return [answer[f"out/{name}"] for name in outputs]


@pytest.mark.parametrize("scheme", CODED, ids=lambda s: s.name)
def test_a_quantized_linear_multiplies_the_dequantized_matrix(scheme, tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    weight, bias, x = normal(48, 256), normal(48), normal(1, 5, 256)
    y = g.linear(g.input("x", np.float32, [1, "S", 256]), "fc", weight, bias, scheme)
    (got,) = computed(g, {y: np.float32}, {"x": x})
    exact = x @ dequantize(quantize(weight, scheme)).T + bias
    np.testing.assert_allclose(got, exact, atol=1e-4)


@pytest.mark.parametrize("scheme", CODED, ids=lambda s: s.name)
@pytest.mark.parametrize("inputs", [80, 192, 256, 384])
def test_quantized_linears_reach_the_integer_kernel(scheme, inputs, tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    y = g.linear(g.input("x", np.float32, [1, "S", inputs]), "fc", normal(32, inputs), None, scheme)
    g.output("y", np.float32, [1, "S", 32], y)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    ort.InferenceSession(str(g.save()), options)
    nodes = onnx.load(tmp_path / "optimized.onnx", load_external_data=False).graph.node
    assert [node.op_type for node in nodes] == ["MatMulNBits"]


@pytest.mark.parametrize(("scheme", "rounds"), [(FP32, False), (FP16, True)])
def test_a_float_linear_is_stored_as_asked(scheme, rounds, tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    weight, x = normal(32, 64), normal(1, 3, 64)
    y = g.linear(g.input("x", np.float32, [1, "S", 64]), "fc", weight, None, scheme)
    (got,) = computed(g, {y: np.float32}, {"x": x})
    kept = weight.astype(np.float16).astype(np.float32) if rounds else weight
    np.testing.assert_allclose(got, x @ kept.T, atol=1e-5)
    assert data_bytes(g) == 32 * 64 * (2 if rounds else 4)


def test_a_weight_that_float16_holds_exactly_is_stored_in_it(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    weight = normal(32, 64).astype(np.float16).astype(np.float32)
    x = normal(1, 3, 64)
    y = g.linear(g.input("x", np.float32, [1, "S", 64]), "fc", weight)
    (got,) = computed(g, {y: np.float32}, {"x": x})
    np.testing.assert_allclose(got, x @ weight.T, atol=1e-5)
    assert data_bytes(g) == 32 * 64 * 2


def test_a_weight_that_float16_cannot_hold_is_refused(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    with pytest.raises(ConfigError, match="g: big is too large for float16"):
        g.weight("big", np.full(3, 1e5, np.float32), half=True)
    g.weight("exact", np.full(3, 1e5, np.float32))


@pytest.mark.parametrize(
    ("value", "scheme", "message"),
    [
        (np.nan, INT8, r"g: fc\.codes: from row 0 on: .* not finite"),
        (1e5, FP16, r"g: fc\.weight\.half: from row 0 on: .* not finite as float16"),
        (np.nan, FP32, r"g: fc\.weight: from row 0 on: .* not finite as float32"),
    ],
)
def test_a_matrix_that_cannot_be_stored_is_named(value, scheme, message, tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    weight = normal(32, 64)
    weight[20, 3] = value
    with pytest.raises(ConfigError, match=message):
        g.linear(g.input("x", np.float32, [1, "S", 64]), "fc", weight, None, scheme)


def test_weights_go_to_one_aligned_file_beside_the_graph(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    x = g.input("x", np.float32, [1, "S", 256])
    for i in range(3):
        x = g.linear(x, f"fc{i}", normal(256, 256), None, INT8)
        x = g.linear(x, f"in{i}", normal(256, 256), None, INT4_B32)
    g.output("y", np.float32, [1, "S", 256], x)
    path = g.save()
    assert path.stat().st_size < 20_000
    assert sorted(p.name for p in tmp_path.iterdir()) == ["g.data", "g.onnx"]
    model = onnx.load(path, load_external_data=False)
    external = [t for t in model.graph.initializer if t.external_data]
    entries = [{e.key: e.value for e in t.external_data} for t in external]
    assert len(external) == 12  # codes and scales
    assert {e["location"] for e in entries} == {"g.data"}
    assert all(int(e["offset"]) % 64 == 0 for e in entries)
    ends = [int(e["offset"]) + int(e["length"]) for e in entries]
    assert max(ends) == data_bytes(g)


def test_a_graph_of_small_constants_has_no_data_file(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    x = g.input("x", np.float32, [2])
    g.output("y", np.float32, [2], g.op("Mul", x, g.scalar(3.0)))
    g.save()
    assert [p.name for p in tmp_path.iterdir()] == ["g.onnx"]
    assert Engine.load(g.path).run({"x": normal(2) * 0 + 1})["y"].tolist() == [3, 3]


def test_equal_numbers_are_stored_once_and_names_only_once(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    assert (g.ints(1, 2), g.scalar(0.5)) == (g.ints(1, 2), g.scalar(0.5))
    assert g.scalar(0.5) != g.scalar(0.25)
    g.const("a", normal(2))
    with pytest.raises(ValueError, match="constant a stored twice"):
        g.const("a", normal(2))


def test_shape_helpers_do_what_numpy_does(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    x, start = g.input("x", np.float32, [1, "S", 12]), g.input("start", np.int64, [1])
    names = {
        g.slice(x, 1, 1, 3): np.float32,
        g.slice(x, 1, start, g.op("Add", start, g.ints(2))): np.float32,
        g.tail(x, 1, 2): np.float32,
        g.concat(2, x, x): np.float32,
        g.merge_heads(g.split_heads(x, 3, 4), 12): np.float32,
        g.transpose(x, 0, 2, 1): np.float32,
    }
    value = normal(1, 5, 12)
    got = computed(g, names, {"x": value, "start": np.array([2])})
    wanted = [value[:, 1:3], value[:, 2:4], value[:, -2:], np.concatenate((value, value), 2)]
    for a, b in zip(got, [*wanted, value, value.transpose(0, 2, 1)], strict=True):
        np.testing.assert_array_equal(a, b)


def test_size_is_the_length_of_one_axis(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    size = g.size(g.input("x", np.float32, [1, "S", 12]), 1)
    g.output(size, np.int64, [1])
    g.save()
    assert Engine.load(g.path).run({"x": normal(1, 7, 12)})[size].tolist() == [7]


def test_norms(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    x = g.input("x", np.float32, [1, "S", 8])
    w, b = normal(8), normal(8)
    layer, rms = g.layer_norm(x, "ln", w, b), g.rms_norm(x, "rms", w, 1e-6)
    value = normal(1, 9, 8)
    got = computed(g, dict.fromkeys((layer, rms), np.float32), {"x": value})
    centred = value - value.mean(-1, keepdims=True)
    exact = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + 1e-5) * w + b
    np.testing.assert_allclose(got[0], exact, atol=1e-5)
    exact = value / np.sqrt(np.square(value).mean(-1, keepdims=True) + 1e-6) * w
    np.testing.assert_allclose(got[1], exact, atol=1e-5)
