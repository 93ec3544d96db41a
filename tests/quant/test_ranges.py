"""Activation ranges: the same for any pieces, and the clip that errs least."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from antiphon.quant.ranges import ActivationRange
from antiphon.quant.schemes import QuantError

VALUES = npst.arrays(np.float32, 60, elements=st.floats(-1e9, 1e9, width=32))


def seen(*pieces):
    found = ActivationRange()
    for piece in pieces:
        found.add(piece)
    return found


def error(values, scale):
    return np.square(np.clip(np.rint(values / scale), -128, 127) * scale - values).mean()


@given(values=VALUES, cuts=st.lists(st.integers(0, 60), max_size=4))
@settings(max_examples=50)
def test_pieces_and_their_order_do_not_matter(values, cuts):
    pieces = np.split(values, sorted(cuts))
    whole, joined = seen(values), seen(*pieces[::-1])
    apart = seen(pieces[0])
    apart.join(seen(*pieces[1:]))
    assert whole.scale() == joined.scale() == apart.scale()
    assert whole.peak == joined.peak == apart.peak == np.abs(values).max()


@given(values=VALUES)
@settings(max_examples=50)
def test_the_scale_never_exceeds_what_the_peak_needs(values):
    found = seen(values)
    assert 0 < found.scale() <= found.scale(clip=False)
    if found.peak:
        assert found.scale(clip=False) == pytest.approx(found.peak / 127)


def test_clipping_a_tail_errs_less():
    values = np.random.default_rng(0).standard_normal(100_000).astype(np.float32)
    values[::10_000] = 20
    found = seen(*np.split(values, 10))
    clipped, whole = found.scale(), found.scale(clip=False)
    assert clipped < 0.95 * whole
    assert error(values, clipped) < 0.99 * error(values, whole)
    best = min(error(values, s) for s in whole * np.linspace(0.05, 1, 400))
    assert error(values, clipped) < 1.05 * best


def test_an_even_spread_is_not_clipped():
    values = np.linspace(-3, 3, 10_000, dtype=np.float32)
    assert seen(values).scale() == pytest.approx(3 / 127, rel=0.02)


@pytest.mark.parametrize("values", [[], [0.0, -0.0]])
def test_silence_has_a_usable_scale(values):
    assert seen(np.array(values, np.float32)).scale() == 1


def test_values_must_be_finite():
    with pytest.raises(QuantError, match="not finite"):
        seen(np.array([1, np.inf], np.float32))
