"""fp8 E4M3, bit for bit as ml_dtypes has it, but saturating."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.float8 import MAX, decode, encode
from antiphon.quant.schemes import FP8, QuantError

ALL = np.arange(256).astype(np.uint8)


def as_ml_dtypes(values):
    return np.clip(values, -MAX, MAX).astype(ml_dtypes.float8_e4m3fn).view(np.uint8)


def test_every_pattern_has_the_value_of_ml_dtypes():
    np.testing.assert_array_equal(decode(ALL), ALL.view(ml_dtypes.float8_e4m3fn).astype(np.float32))
    assert np.signbit(decode(np.array([0x80], np.uint8))).all()


def test_every_value_keeps_its_pattern():
    np.testing.assert_array_equal(encode(decode(ALL)), ALL)


def test_every_half_rounds_as_ml_dtypes_does():
    halves = np.arange(2**16).astype(np.uint16).view(np.float16).astype(np.float32)
    halves = halves[~np.isnan(halves)]
    np.testing.assert_array_equal(encode(halves), as_ml_dtypes(halves))


@given(npst.arrays(np.float32, 50, elements=st.floats(width=32, allow_nan=False)))
def test_any_float_rounds_as_ml_dtypes_does(values):
    np.testing.assert_array_equal(encode(values), as_ml_dtypes(values))


def test_the_middle_between_two_values_goes_to_the_even_one():
    values = decode(np.arange(0x7F).astype(np.uint8))  # 0 … 448
    middle = (values[:-1].astype(np.float64) + values[1:]) / 2
    codes = encode(middle.astype(np.float32))
    assert (codes % 2 == 0).all()
    for side in (-np.inf, np.inf):
        beside = encode(np.nextafter(middle.astype(np.float32), np.float32(side)))
        np.testing.assert_array_equal(beside, np.arange(0x7E) + (side > 0))


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (0.0, 0x00),
        (-0.0, 0x80),
        (2.0**-9, 0x01),
        (2.0**-10, 0x00),
        (2.0**-6, 0x08),
        (1.0, 0x38),
        (-1.5, 0xBC),
        (448.0, 0x7E),
        (1e9, 0x7E),
        (-np.inf, 0xFE),
        (np.nan, 0x7F),
    ],
)
def test_golden_patterns(value, code):
    assert encode(np.array(value, np.float32)).item() == code


def test_shape_is_kept_and_views_are_read_right():
    values = np.random.default_rng(0).standard_normal((6, 8)).astype(np.float32)
    np.testing.assert_array_equal(encode(values.T[::2]), as_ml_dtypes(values.T[::2]))
    assert decode(encode(values)).shape == (6, 8)


@given(npst.arrays(np.float32, (3, 16), elements=st.floats(-(2.0**60), 2.0**60, width=32)))
def test_a_matrix_keeps_a_sixteenth_of_each_weight(weight):
    codes, scales = quantize(weight, FP8)
    assert (codes.dtype, scales.shape) == (np.uint8, (3, 1))
    error = np.abs(dequantize(quantize(weight, FP8)) - weight)
    assert (error <= np.maximum(np.abs(weight) / 16, scales * 2.0**-10) * 1.0001).all()


def test_a_weight_must_be_finite():
    with pytest.raises(QuantError, match="not finite"):
        quantize(np.full((1, 4), np.nan, np.float32), FP8)
