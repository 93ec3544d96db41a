"""Error measures on arrays whose answer is known."""

import numpy as np
import pytest

from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.error import cosine, max_abs, sqnr_db
from antiphon.quant.schemes import INT4_B32, INT4_B128, INT8


def test_sqnr_counts_decibels():
    exact = np.array([3.0, 4.0])
    assert sqnr_db(exact, exact * 1.1) == pytest.approx(20)
    assert sqnr_db(exact, exact) == float("inf")
    assert sqnr_db(np.zeros(2), exact) == float("-inf")


def test_cosine_measures_direction_only():
    a = np.array([[1.0, 0.0]])
    assert cosine(a, 5 * a) == pytest.approx(1)
    assert cosine(a, np.array([[0.0, 2.0]])) == 0
    assert cosine(0 * a, 0 * a) == 1
    assert cosine(0 * a, a) == 0


def test_max_abs_takes_the_worst():
    assert max_abs([1, 2, 3], [1, 2.5, 3]) == 0.5
    assert max_abs([], []) == 0


def test_more_bits_and_smaller_blocks_are_nearer():
    weight = np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32)
    noise = [sqnr_db(weight, dequantize(quantize(weight, s))) for s in (INT4_B128, INT4_B32, INT8)]
    assert noise == sorted(noise)
    # relative error of round-to-nearest on gaussian weights: 0.118, 0.098, 0.006
    np.testing.assert_allclose(noise, [18.6, 20.2, 43.9], atol=0.2)
