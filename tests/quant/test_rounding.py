"""Searched scales: never worse than plain ones, better where it counts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.rounding import search
from antiphon.quant.schemes import (
    FP8,
    INT4_B32,
    INT4_B128,
    INT8,
    INT8_ROW,
    QuantError,
)

SCHEMES = [INT4_B32, INT4_B128, INT8, INT8_ROW, FP8]
WEIGHTS = npst.arrays(np.float32, (3, 256), elements=st.floats(-(2.0**60), 2.0**60, width=32))


def squared_error(weight, quantized, importance=1.0):
    """Per block, in float64."""
    error = (dequantize(quantized).astype(np.float64) - weight) ** 2 * importance
    return error.reshape(*quantized.scales.shape, -1).sum(2)


def gaussian(shape=(64, 512), seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


@given(
    weight=WEIGHTS,
    importance=st.none() | npst.arrays(np.float64, 256, elements=st.floats(0, 100)),
    scheme=st.sampled_from(SCHEMES),
    negative=st.booleans(),
)
@settings(max_examples=50)
def test_no_block_is_further_off_than_plainly_rounded(weight, importance, scheme, negative):
    found = search(weight, scheme, importance=importance, negative_scales=negative)
    counts = np.ones(256) if importance is None else importance
    power = (weight.astype(np.float64) ** 2 * counts).reshape(*found.scales.shape, -1).sum(2)
    plain = squared_error(weight, quantize(weight, scheme), counts)
    assert (squared_error(weight, found, counts) <= plain + 1e-5 * power + 1e-60).all()


@given(weight=WEIGHTS, scheme=st.sampled_from(SCHEMES), negative=st.booleans())
@settings(max_examples=50)
def test_codes_stay_in_range_and_scales_are_usable(weight, scheme, negative):
    codes, scales = search(weight, scheme, negative_scales=negative)
    assert np.isfinite(scales).all()
    assert (scales != 0).all()
    assert scheme is INT4_B32 or scheme is INT4_B128 or (scales > 0).all()
    if not scheme.floating:
        assert codes.min() >= scheme.lowest
        assert codes.max() <= scheme.limit


@pytest.mark.parametrize(
    ("scheme", "plain", "positive", "free"),
    [(INT4_B32, 0.097, 0.086, 0.081), (INT4_B128, 0.1175, 0.101, 0.097)],
)
def test_relative_error_on_gaussian_weights(scheme, plain, positive, free):
    weight = gaussian((256, 1024))
    found = [
        quantize(weight, scheme),
        search(weight, scheme, negative_scales=False),
        search(weight, scheme),
    ]
    error = [np.linalg.norm(dequantize(q) - weight) / np.linalg.norm(weight) for q in found]
    np.testing.assert_allclose(error, [plain, positive, free], atol=0.002)


def test_a_negative_scale_gives_the_sixteenth_code_to_the_larger_side():
    weight = gaussian()
    codes, scales = search(weight, INT4_B32)
    blocks = weight.reshape(*scales.shape, -1)
    positive = blocks.max(2) > -blocks.min(2)
    np.testing.assert_array_equal(scales < 0, positive)
    assert (codes == -8).mean() > 0.01
    assert (search(weight, INT4_B32, negative_scales=False).scales > 0).all()


def test_what_counts_more_comes_out_nearer():
    weight = gaussian((32, 128))
    importance = np.ones(128)
    importance[5] = 1e4
    even = np.abs(dequantize(search(weight, INT4_B128)) - weight)
    uneven = np.abs(dequantize(search(weight, INT4_B128, importance=importance)) - weight)
    assert uneven[:, 5].mean() < 0.4 * even[:, 5].mean()


def test_importance_counts_relative_to_its_block():
    weight, importance = gaussian((4, 64)), np.random.default_rng(1).random(64)
    scaled = importance * np.repeat([1e-30, 1e30], 32)
    a, b = (search(weight, INT4_B32, importance=i) for i in (importance, scaled))
    np.testing.assert_array_equal(a.codes, b.codes)


def test_rows_do_not_depend_on_each_other():
    weight = gaussian((700, 512))
    whole, part = search(weight, INT4_B32), search(weight[600:650], INT4_B32)
    np.testing.assert_array_equal(whole.codes[600:650], part.codes)
    np.testing.assert_array_equal(whole.scales[600:650], part.scales)


def test_a_block_of_zeros_stays_zero():
    weight = np.zeros((1, 64), np.float32)
    assert not dequantize(search(weight, INT4_B32)).any()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_weight_must_be_finite(value):
    weight = np.ones((3, 128), np.float32)
    weight[1, 7] = value
    with pytest.raises(QuantError, match="not finite"):
        search(weight, INT8)


@pytest.mark.parametrize(
    ("importance", "message"),
    [(np.ones(5), "for 64 inputs"), (np.full(64, np.nan), "finite"), (-np.ones(64), "negative")],
)
def test_importance_is_checked(importance, message):
    with pytest.raises(QuantError, match=message):
        search(np.ones((1, 64), np.float32), INT4_B32, importance=importance)


def test_a_block_must_divide_the_inputs():
    with pytest.raises(QuantError, match="block 32 does not divide 48 inputs; blocks of 16"):
        search(np.zeros((1, 48), np.float32), INT4_B32)
