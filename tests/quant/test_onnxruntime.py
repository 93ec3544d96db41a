"""Codes, bytes and products, bit for bit as ONNX Runtime makes and reads them."""

import numpy as np
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi._pybind_state import quantize_matmul_4bits, quantize_qdq_matmul_4bits

from antiphon.quant import float8, kv_cache
from antiphon.quant.blocks import Quantized, dequantize, pack_int4, quantize, unpack_int4
from antiphon.quant.gptq import gptq
from antiphon.quant.rounding import round_levels, search, to_codes
from antiphon.quant.schemes import FP8, INT4_B32, INT4_B64, INT4_B128, INT8, INT8_ROW

OUTPUTS, INPUTS = 48, 256
INT4 = [INT4_B32, INT4_B64, INT4_B128]
ONNX_TYPES = {4: TensorProto.INT4, 8: TensorProto.INT8}


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def session(nodes, inputs, outputs, constants=(), **config):
    domains = [helper.make_opsetid("", 24), helper.make_opsetid("com.microsoft", 1)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(constants))
    model = helper.make_model(graph, opset_imports=domains, ir_version=11)
    options = ort.SessionOptions()
    for key, value in config.items():
        options.add_session_config_entry(f"session.{key}", value)
    return ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])


def info(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def floats(name, value):
    return helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.tobytes(), raw=True)


def their_int4(weight, block):
    """MatMulNBits's quantizer for QDQ: bytes of [I, O], scales [I/g, O], symmetric."""
    outputs, inputs = weight.shape
    packed = np.zeros(outputs * inputs // 2, np.uint8)
    scales = np.zeros((inputs // block, outputs), np.float32)
    zero_points = np.zeros((scales.size + 1) // 2, np.uint8)
    matrix = np.ascontiguousarray(weight.T)
    quantize_qdq_matmul_4bits(packed, matrix, scales, zero_points, block, outputs, inputs, True)
    return packed, scales


def codes_for(weight, scales, scheme):
    """Ours [O, I] for given scales [O, I/g]."""
    scaled = weight.reshape(*scales.shape, -1) / scales[:, :, None]
    return to_codes(round_levels(scaled, scheme), scheme).reshape(weight.shape)


@pytest.mark.parametrize("scheme", INT4)
def test_bytes_are_those_of_the_matmulnbits_quantizer(scheme):
    weight = gaussian(OUTPUTS, INPUTS)
    theirs, scales = their_int4(weight, scheme.block_size)
    codes = codes_for(weight, np.ascontiguousarray(scales.T), scheme)
    np.testing.assert_array_equal(pack_int4(np.ascontiguousarray(codes.T)), theirs)
    np.testing.assert_array_equal(unpack_int4(theirs, (INPUTS, OUTPUTS)), codes.T)


@pytest.mark.parametrize("scheme", INT4)
def test_their_operator_layout_holds_the_same_codes(scheme):
    weight, block = gaussian(OUTPUTS, INPUTS), scheme.block_size
    blocks = INPUTS // block
    packed = np.zeros((OUTPUTS, blocks, block // 2), np.uint8)
    scales = np.zeros((OUTPUTS, blocks), np.float32)
    zero_points = np.zeros((OUTPUTS, (blocks + 1) // 2), np.uint8)
    matrix = np.ascontiguousarray(weight.T)
    quantize_matmul_4bits(packed, matrix, scales, zero_points, block, OUTPUTS, INPUTS, True)
    offset = codes_for(weight, scales, scheme) + 8  # that layout: [O, I/g, g/2], zero point 8
    np.testing.assert_array_equal(pack_int4(offset.astype(np.int8)), packed.reshape(-1))


def test_the_search_is_closer_than_their_quantizer():
    weight = gaussian(OUTPUTS, INPUTS)
    packed, scales = their_int4(weight, 32)
    codes = np.ascontiguousarray(unpack_int4(packed, (INPUTS, OUTPUTS)).T)
    theirs = dequantize(Quantized(codes, np.ascontiguousarray(scales.T)))
    ours = dequantize(search(weight, INT4_B32))
    assert np.linalg.norm(ours - weight) < 0.96 * np.linalg.norm(theirs - weight)


@pytest.mark.parametrize("scheme", [*INT4, INT8, INT8_ROW, FP8])
def test_codes_are_those_of_quantizelinear(scheme):
    weight = gaussian(OUTPUTS, INPUTS)
    codes, scales = quantize(weight, scheme)
    dtype = TensorProto.FLOAT8E4M3FN if scheme.floating else ONNX_TYPES[scheme.bits]
    where = {"axis": 1, "block_size": scheme.block_size} if scheme.block_size else {"axis": 0}
    scale = scales if scheme.block_size else scales[:, 0]
    node = helper.make_node("QuantizeLinear", ["w", "s"], ["q"], output_dtype=dtype, **where)
    shape = [OUTPUTS, INPUTS]
    engine = session(
        [node],
        [info("w", TensorProto.FLOAT, shape)],
        [info("q", dtype, shape)],
        [floats("s", np.ascontiguousarray(scale))],
    )
    value = ort.OrtValue.ortvalue_from_numpy(weight)
    theirs = engine.run_with_ort_values(["q"], {"w": value})[0]
    if scheme.bits == 4:
        back = helper.make_node("DequantizeLinear", ["q", "s"], ["w2"], **where)
        engine = session(
            [node, back],
            [info("w", TensorProto.FLOAT, shape)],
            [info("w2", TensorProto.FLOAT, shape)],
            [floats("s", np.ascontiguousarray(scale))],
        )
        restored = engine.run(None, {"w": weight})[0]
        np.testing.assert_array_equal(restored, dequantize(Quantized(codes, scales)))
        return
    np.testing.assert_array_equal(
        np.frombuffer(theirs.numpy().tobytes(), codes.dtype), codes.ravel()
    )


@pytest.mark.parametrize("level", ["0", "4"])
@pytest.mark.parametrize("method", ["search", "gptq"])
def test_the_fused_product_takes_negative_scales_and_all_sixteen_codes(level, method):
    weight, x = gaussian(OUTPUTS, INPUTS), gaussian(3, INPUTS, seed=1)
    if method == "search":
        found = search(weight, INT4_B32)
    else:
        found = gptq(weight, np.eye(INPUTS, dtype=np.float32), INT4_B32)
    assert found.scales.min() < 0 < found.scales.max()
    assert found.codes.min() == -8
    packed = pack_int4(np.ascontiguousarray(found.codes.T))
    stored = helper.make_tensor(
        "w", TensorProto.INT4, [INPUTS, OUTPUTS], packed.tobytes(), raw=True
    )
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0, block_size=32),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    engine = session(
        nodes,
        [info("x", TensorProto.FLOAT, ["S", INPUTS])],
        [info("y", TensorProto.FLOAT, ["S", OUTPUTS])],
        [stored, floats("s", np.ascontiguousarray(found.scales.T))],
        qdq_matmulnbits_accuracy_level=level,
    )
    y = engine.run(None, {"x": x})[0]
    exact = x @ dequantize(found).T
    tolerance = 1e-4 if level == "0" else 0.02 * np.abs(exact).max()
    np.testing.assert_allclose(y, exact, atol=tolerance)


def test_fp8_codes_are_read_as_what_they_stand_for():
    weight, x = gaussian(OUTPUTS, INPUTS), gaussian(3, INPUTS, seed=1)
    codes, scales = quantize(weight, FP8)
    stored = helper.make_tensor(
        "w",
        TensorProto.FLOAT8E4M3FN,
        [INPUTS, OUTPUTS],
        np.ascontiguousarray(codes.T).tobytes(),
        raw=True,
    )
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    engine = session(
        nodes,
        [info("x", TensorProto.FLOAT, ["S", INPUTS])],
        [info("y", TensorProto.FLOAT, ["S", OUTPUTS])],
        [stored, floats("s", scales[:, 0])],
        disable_quant_qdq="1",
    )
    exact = x @ dequantize(Quantized(codes, scales)).T
    np.testing.assert_allclose(engine.run(None, {"x": x})[0], exact, atol=1e-4)
    assert np.abs(float8.decode(codes)).max() == float8.MAX


def test_the_int8_cache_of_groupqueryattention_holds_our_codes():
    heads, groups, dim, capacity, count = 4, 2, 64, 32, 7
    k, v = (gaussian(1, groups, count, dim, seed=i) for i in (1, 2))
    narrow = [0.8 * kv_cache.peaks(rows) for rows in (k, v)]  # so that clipping is seen too
    scales = [kv_cache.scales(peak) for peak in narrow]
    names = ["q", "k", "v", "pk", "pv", "last", "total", *[""] * 5, "ks", "vs"]
    node = helper.make_node(
        "GroupQueryAttention",
        names,
        ["y", "ok", "ov"],
        domain="com.microsoft",
        num_heads=heads,
        kv_num_heads=groups,
        kv_cache_bit_width=8,
        k_quant_type="PER_CHANNEL",
        v_quant_type="PER_CHANNEL",
    )
    cache = [1, groups, capacity, dim]
    engine = session(
        [node],
        [
            info("q", TensorProto.FLOAT, [1, "S", heads * dim]),
            *(info(n, TensorProto.FLOAT, [1, "S", groups * dim]) for n in "kv"),
            *(info(n, TensorProto.INT8, cache) for n in ("pk", "pv")),
            info("last", TensorProto.INT32, [1]),
            info("total", TensorProto.INT32, []),
        ],
        [
            info("y", TensorProto.FLOAT, [1, "S", heads * dim]),
            *(info(n, TensorProto.INT8, cache) for n in ("ok", "ov")),
        ],
        [floats(name, scale[None]) for name, scale in zip(("ks", "vs"), scales, strict=True)],
    )
    packed = [rows.transpose(0, 2, 1, 3).reshape(1, count, -1) for rows in (k, v)]
    feeds = {
        "q": gaussian(1, count, heads * dim),
        "k": packed[0],
        "v": packed[1],
        "pk": np.zeros(cache, np.int8),
        "pv": np.zeros(cache, np.int8),
        "last": np.array([count - 1], np.int32),
        "total": np.array(count, np.int32),
    }
    _, keys, values = engine.run(None, feeds)
    np.testing.assert_array_equal(keys[:, :, :count], kv_cache.encode(k, scales[0]))
    np.testing.assert_array_equal(values[:, :, :count], kv_cache.encode(v, scales[1]))
