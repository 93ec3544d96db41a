"""GPTQ against its textbook form, and against plain rounding."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.error import output_sqnr_db
from antiphon.quant.gptq import factorize, gptq
from antiphon.quant.hessian import Hessian
from antiphon.quant.rounding import search
from antiphon.quant.schemes import FP8, INT4_B32, INT4_B128, INT8, INT8_ROW, QuantError


def inputs(count, width, seed=0):
    """Rows with correlated channels, a few of them large, as activations are."""
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).standard_normal((width // 4, width))
    size = np.exp(np.random.default_rng(98).standard_normal(width) * 0.7)
    size[:: width // 4] *= 10
    rows = rng.standard_normal((count, width // 4)) @ mix + rng.standard_normal((count, width))
    return (rows * size).astype(np.float32)


def hessian_of(rows):
    hessian = Hessian(rows.shape[1])
    hessian.add(rows)
    return hessian.matrix()


def weights(outputs, width, seed=0):
    return np.random.default_rng(seed).standard_normal((outputs, width)).astype(np.float32)


def textbook(weight, hessian, scheme, damping, order):
    """Frantar et al., algorithm 1: the inverse Hessian, one column after the other, in float64."""
    width = weight.shape[1]
    h = hessian.astype(np.float64)
    h += damping * np.diag(h).mean() * np.eye(width)
    inverse = np.linalg.cholesky(np.linalg.inv(h[np.ix_(order, order)])).T
    scales = search(weight, scheme, importance=np.diag(hessian)).scales
    left = weight.astype(np.float64)[:, order]
    codes = np.empty(weight.shape, np.int8)
    for k, column in enumerate(order):
        scale = scales[:, column * scales.shape[1] // width]
        code = np.clip(np.rint(left[:, k] / scale), scheme.lowest, scheme.limit)
        codes[:, column] = code
        error = (left[:, k] - scale * code) / inverse[k, k]
        left[:, k:] -= error[:, None] * inverse[k, k:]
    return codes


@pytest.mark.parametrize("width", [96, 320])  # less than a panel; several, the last one short
@pytest.mark.parametrize("act_order", [False, True])
def test_codes_are_those_of_the_textbook(width, act_order):
    hessian, weight = hessian_of(inputs(1000, width)), weights(24, width)
    factor = factorize(hessian, act_order=act_order)
    ours = gptq(weight, factor, INT4_B32).codes
    theirs = textbook(weight, hessian, INT4_B32, 0.01, factor.order)
    assert (ours != theirs).mean() < 0.002  # float32 decides near ties otherwise


@pytest.mark.parametrize("scheme", [INT4_B32, INT4_B128, INT8, INT8_ROW, FP8])
def test_outputs_lose_less_than_by_rounding_each_weight(scheme):
    hessian, weight = hessian_of(inputs(2000, 256)), weights(64, 256)
    unseen = hessian_of(inputs(2000, 256, seed=1))
    found = [
        quantize(weight, scheme),
        search(weight, scheme, importance=hessian.diagonal()),
        gptq(weight, hessian, scheme, negative_scales=False),
        gptq(weight, hessian, scheme),
    ]
    plain, searched, positive, best = (output_sqnr_db(weight, dequantize(q), unseen) for q in found)
    assert plain <= searched + 1e-6
    assert positive > searched + 3  # dB
    assert best > positive - 0.1


@given(seed=st.integers(0, 2**32 - 1), scheme=st.sampled_from([INT4_B32, INT8_ROW, FP8]))
@settings(max_examples=30)
def test_inputs_that_do_not_correlate_are_rounded_to_nearest(seed, scheme):
    rng = np.random.default_rng(seed)
    diagonal = rng.exponential(size=64).astype(np.float32)
    diagonal[rng.integers(64)] = 0  # one that calibration never saw
    weight = weights(3, 64, seed)
    found = gptq(weight, np.diag(diagonal), scheme)
    expected = search(weight, scheme, importance=diagonal)
    np.testing.assert_array_equal(found.codes, expected.codes)
    np.testing.assert_array_equal(found.scales, expected.scales)


def test_a_hessian_of_zeros_means_plain_rounding():
    weight = weights(2, 64)
    found = gptq(weight, np.zeros((64, 64), np.float32), INT4_B32)
    np.testing.assert_array_equal(found.codes, search(weight, INT4_B32).codes)


def test_blocks_of_rows_may_be_rounded_apart():
    factor, weight = factorize(hessian_of(inputs(600, 128))), weights(1500, 128)
    whole = gptq(weight, factor, INT4_B32)
    for rows in (slice(0, 700), slice(700, 1500)):
        part = gptq(weight[rows], factor, INT4_B32)
        np.testing.assert_array_equal(whole.scales[rows], part.scales)
        assert (whole.codes[rows] != part.codes).mean() < 1e-3  # products summed in another order


def test_the_same_call_gives_the_same_codes():
    hessian, weight = hessian_of(inputs(600, 128)), weights(32, 128)
    a, b = gptq(weight, hessian, INT4_B32), gptq(weight, hessian, INT4_B32)
    np.testing.assert_array_equal(a.codes, b.codes)


def test_the_factor_rebuilds_the_hessian():
    hessian = hessian_of(inputs(1000, 300)).astype(np.float64)
    kept = hessian.astype(np.float32)
    factor = factorize(kept)
    np.testing.assert_array_equal(kept, hessian.astype(np.float32))  # not destroyed
    unit = np.triu(factor.upper.astype(np.float64), 1) + np.eye(300)
    damped = hessian + 0.01 * np.diag(hessian).mean() * np.eye(300)
    damped = damped[np.ix_(factor.order, factor.order)]
    halves = np.linalg.solve(unit, damped) @ np.linalg.inv(unit).T  # D
    assert np.abs(halves - np.diag(np.diag(halves))).max() < 1e-4 * np.abs(halves).max()
    assert (np.diag(halves) > 0).all()
    assert (np.diff(np.diag(hessian)[factor.order]) <= 0).all()


def test_damping_grows_until_the_hessian_can_be_decomposed():
    row = inputs(1, 300).astype(np.float64)
    singular = (row.T @ row).astype(np.float32)
    singular[0, 0] *= 0.9999  # not even positive semi-definite
    factor = factorize(singular, damping=1e-6)
    assert 1e-6 < factor.damping <= 1e-2
    direct = factorize(singular, damping=factor.damping)
    np.testing.assert_array_equal(np.triu(factor.upper, 1), np.triu(direct.upper, 1))


def test_factorizing_in_place_needs_little_more_memory():
    hessian = hessian_of(inputs(100, 1536))
    tracemalloc.start()
    try:
        factor = factorize(hessian, overwrite=True)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert factor.upper is hessian
    assert peak < 0.75 * hessian.nbytes  # constant panels: 6 % at 12,288 inputs


@pytest.mark.parametrize(
    ("hessian", "message"),
    [
        (np.ones((3, 4), np.float32), "square"),
        (np.full((4, 4), np.nan, np.float32), "finite"),
        (-np.eye(4, dtype=np.float32), "not negative"),
        (1 - np.eye(4, dtype=np.float32), "more rows"),
    ],
)
def test_what_is_no_hessian_is_refused(hessian, message):
    with pytest.raises(QuantError, match=message):
        factorize(hessian, damping=1e-9)


def test_sizes_must_agree():
    with pytest.raises(QuantError, match="Hessian of 64 inputs for a matrix of 32"):
        gptq(weights(1, 32), np.eye(64, dtype=np.float32), INT4_B32)


def test_a_weight_must_be_finite():
    with pytest.raises(QuantError, match="not finite"):
        gptq(np.full((1, 32), np.inf, np.float32), np.eye(32, dtype=np.float32), INT4_B32)
