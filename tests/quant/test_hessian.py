"""Second moments: the same however the rows arrive."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.quant.error import output_sqnr_db
from antiphon.quant.hessian import Hessian, rescale
from antiphon.quant.schemes import QuantError

X = np.random.default_rng(0).standard_normal((60, 700)).astype(np.float32)


@given(cuts=st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=10)
def test_rows_may_come_in_any_pieces(cuts):
    hessian = Hessian(700)
    for piece in np.split(X, sorted(cuts)):
        hessian.add(piece)
    np.testing.assert_allclose(hessian.matrix(), X.T @ X, atol=1e-3)
    assert hessian.rows == 60


def test_it_is_symmetric_and_grows_after_it_was_read():
    hessian = Hessian(700)
    hessian.add(X[:30].reshape(3, 10, 700))
    assert np.array_equal(hessian.matrix(), hessian.matrix().T)
    hessian.add(X[30:].astype(np.float16))
    np.testing.assert_allclose(hessian.matrix(), X.T @ X, atol=0.1)
    assert np.array_equal(hessian.matrix(), hessian.matrix().T)
    assert hessian.nbytes == 4 * 700 * 700


def test_scaling_the_inputs_scales_it():
    s = np.linspace(0.5, 2, 700).astype(np.float32)
    np.testing.assert_allclose(rescale(X.T @ X, s), (X / s).T @ (X / s), atol=1e-2)


def test_it_measures_the_outputs():
    weight = np.random.default_rng(1).standard_normal((2000, 700)).astype(np.float32)
    off = weight * np.linspace(0.9, 1.1, 700, dtype=np.float32)
    exact = weight @ X.T
    expected = 10 * np.log10((exact**2).sum() / ((off @ X.T - exact) ** 2).sum())
    assert output_sqnr_db(weight, off, X.T @ X) == pytest.approx(expected, abs=1e-2)
    assert output_sqnr_db(weight, weight, X.T @ X) == float("inf")
    assert output_sqnr_db(0 * weight, weight, X.T @ X) == float("-inf")


@pytest.mark.parametrize(
    ("rows", "message"),
    [(np.ones((2, 8)), "of 4 inputs"), (np.array([[1, np.nan, 0, 0]]), "not finite")],
)
def test_rows_are_checked(rows, message):
    with pytest.raises(QuantError, match=message):
        Hessian(4).add(rows)
