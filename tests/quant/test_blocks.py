"""Rounding and packing: the error bound, identities, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from antiphon.quant.blocks import (
    Quantized,
    dequantize,
    pack_int4,
    pack_outputs,
    quantize,
    unpack_int4,
)
from antiphon.quant.schemes import INT4_B32, INT8, INT8_ROW, SCHEMES, QuantError, scheme

CODED = [s.name for s in SCHEMES.values() if s.quantized and not s.floating]  # fp8: test_float8
WEIGHTS = npst.arrays(
    np.float32,
    st.tuples(st.integers(1, 5), st.sampled_from([128, 256])),
    elements=st.floats(-(2.0**60), 2.0**60, width=32),
)


@given(weight=WEIGHTS, name=st.sampled_from(CODED))
def test_error_is_at_most_half_a_scale(weight, name):
    quantized = quantize(weight, scheme(name))
    error = np.abs(dequantize(quantized) - weight).reshape(*quantized.scales.shape, -1)
    assert (error <= 0.5001 * quantized.scales[:, :, None]).all()


@given(weight=WEIGHTS, name=st.sampled_from(CODED))
def test_codes_are_symmetric_and_the_largest_weight_of_a_block_is_exact(weight, name):
    codes, scales = quantize(weight, scheme(name))
    assert np.abs(codes).max() <= scheme(name).limit
    blocks = weight.reshape(*scales.shape, -1)
    restored = dequantize(Quantized(codes, scales)).reshape(blocks.shape)
    np.testing.assert_allclose(
        np.abs(restored).max(2), np.abs(blocks).max(2), rtol=1e-5, atol=1e-36
    )


@given(weight=WEIGHTS)
def test_negating_a_matrix_negates_its_codes(weight):
    a, b = quantize(weight, INT4_B32), quantize(-weight, INT4_B32)
    np.testing.assert_array_equal(a.codes, -b.codes)
    np.testing.assert_array_equal(a.scales, b.scales)


def test_every_row_is_quantized_whatever_the_height():
    weight = np.random.default_rng(0).standard_normal((5000, 16)).astype(np.float32)
    whole = quantize(weight, INT8_ROW)
    alone = quantize(weight[4321:4322], INT8_ROW)
    np.testing.assert_array_equal(whole.codes[4321], alone.codes[0])
    assert whole.scales.shape == (5000, 1)


def test_a_block_of_zeros_stays_zero():
    codes, scales = quantize(np.zeros((2, 128), np.float32), INT8)
    assert not codes.any()
    assert (scales > 0).all()


@given(codes=npst.arrays(np.int8, npst.array_shapes(max_dims=3), elements=st.integers(-8, 7)))
def test_packing_is_undone(codes):
    packed = pack_int4(codes)
    assert packed.size == (codes.size + 1) // 2
    np.testing.assert_array_equal(unpack_int4(packed, codes.shape), codes)


def test_packing_puts_the_first_code_in_the_low_half():
    assert pack_int4(np.array([1, -1], np.int8)).tolist() == [0xF1]


def test_golden_bytes_of_a_matrix():
    codes = np.array([[1, -2, 3], [-4, 5, -8]], np.int8)  # [O, I]; two outputs share a byte
    assert pack_outputs(codes).tolist() == [[0xC1, 0x5E, 0x83]]
    assert pack_int4(np.ascontiguousarray(codes.T)).tolist() == [0xC1, 0x5E, 0x83]


def test_a_block_must_divide_the_inputs():
    with pytest.raises(QuantError, match="block 32 does not divide 40"):
        quantize(np.zeros((1, 40), np.float32), INT4_B32)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_must_be_finite(value):
    weight = np.ones((3, 128), np.float32)
    weight[1, 7] = value
    with pytest.raises(QuantError, match="not finite"):
        quantize(weight, INT8)
