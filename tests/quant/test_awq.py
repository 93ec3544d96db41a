"""Activation-aware scaling: never worse on its sample, and no change of the model by itself."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from antiphon.quant import awq
from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.error import output_sqnr_db
from antiphon.quant.folding import divide_outputs, multiply_inputs, value_channels
from antiphon.quant.gptq import gptq
from antiphon.quant.hessian import Hessian, rescale
from antiphon.quant.rounding import search
from antiphon.quant.schemes import INT4_B32, QuantError

HEADS, GROUPS, DIM = 6, 2, 8
SCALES = npst.arrays(np.float32, 16, elements=st.floats(0.125, 8, width=32))


def matrix(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def rows(count, width, seed=0):
    """Inputs of which a few channels are large."""
    x = matrix(count, width, seed=seed + 1)
    x[:, :: width // 4] *= 20
    return x


def gained(weight, unseen, scheme=INT4_B32, scaling=None, method=quantize):
    s = np.ones(weight.shape[1], np.float32) if scaling is None else scaling.scales
    restored = dequantize(method(multiply_inputs(weight, s), scheme)) / s
    return output_sqnr_db(weight, restored, unseen.T @ unseen)


def test_large_inputs_get_a_finer_grid():
    weight, x, unseen = matrix(128, 128), rows(200, 128), rows(200, 128, seed=7)
    scaling = awq.scales([weight], x, INT4_B32)
    assert 0 < scaling.exponent <= 1
    assert scaling.error < 0.6 * scaling.unscaled
    assert scaling.scales[0] > 2 * scaling.scales[1]
    assert scaling.scales.min() * scaling.scales.max() == pytest.approx(1, rel=1e-5)
    assert gained(weight, unseen, scaling=scaling) > gained(weight, unseen) + 2  # dB


def test_the_rounding_that_follows_decides():
    weight, x = matrix(64, 128), rows(100, 128)
    plain, searched = (awq.scales([weight], x, INT4_B32, method=m) for m in (quantize, search))
    assert searched.unscaled < plain.unscaled
    assert searched.error <= searched.unscaled


def test_gptq_takes_the_moments_of_scaled_inputs():
    weight, x, unseen = matrix(64, 128), rows(400, 128), rows(400, 128, seed=7)
    mixing = matrix(128, 128, seed=3) * 0.1 + np.eye(128, dtype=np.float32)
    x, unseen = x @ mixing, unseen @ mixing
    hessian = Hessian(128)
    hessian.add(x)
    scaling = awq.scales([weight], x[:100], INT4_B32)
    moments = rescale(hessian.matrix(), scaling.scales)
    alone = gained(weight, unseen, scaling=scaling)
    both = gained(weight, unseen, scaling=scaling, method=lambda w, s: gptq(w, moments, s))
    assert both > alone + 3  # dB


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20)
def test_a_sample_is_never_answered_worse(seed):
    scaling = awq.scales([matrix(8, 32, seed=seed)], rows(5, 32, seed), INT4_B32)
    assert scaling.error <= scaling.unscaled
    assert (scaling.scales > 0).all()


def test_matrices_of_one_input_are_scaled_together():
    x = rows(50, 64)
    pair = [matrix(16, 64), 100 * matrix(8, 64, seed=5)]
    together = awq.scales(pair, x, INT4_B32)
    apart = [awq.scales([m], x, INT4_B32).unscaled for m in pair]
    assert together.unscaled == pytest.approx(np.mean(apart))  # however large its outputs


def test_silent_inputs_do_not_break_the_others():
    x = np.zeros((4, 32), np.float32)
    scaling = awq.scales([matrix(4, 32)], x, INT4_B32)
    np.testing.assert_array_equal(scaling.scales, 1)
    x[:, 3] = 1
    assert np.isfinite(awq.scales([matrix(4, 32)], x, INT4_B32).scales).all()


@given(scales=SCALES)
def test_scales_fold_into_a_norm(scales):
    x, norm, weight = matrix(5, 16), matrix(16, seed=1), matrix(4, 16, seed=2)
    folded = (x * divide_outputs(norm, scales)) @ multiply_inputs(weight, scales).T
    np.testing.assert_allclose(folded, (x * norm) @ weight.T, rtol=1e-4, atol=1e-4)


@given(scales=SCALES)
def test_scales_fold_into_the_up_projection(scales):
    x, gate, up, down = (
        matrix(*s, seed=i) for i, s in enumerate([(5, 8), (16, 8), (16, 8), (4, 16)])
    )

    def mlp(up, down):
        opening = x @ gate.T
        return (opening / (1 + np.exp(-opening)) * (x @ up.T)) @ down.T

    folded = mlp(divide_outputs(up, scales), multiply_inputs(down, scales))
    np.testing.assert_allclose(folded, mlp(up, down), rtol=1e-3, atol=1e-3)


@given(scales=SCALES)
def test_scales_fold_into_values_that_heads_share(scales):
    x, v, o = matrix(5, 12), matrix(GROUPS * DIM, 12, seed=1), matrix(4, HEADS * DIM, seed=2)
    source = value_channels(HEADS, GROUPS, DIM)
    weights = np.abs(matrix(HEADS, 5, 5, seed=3))  # any attention: it mixes rows, not channels

    def attention(v, o):
        values = np.repeat((x @ v.T).reshape(5, GROUPS, DIM), HEADS // GROUPS, axis=1)
        return np.einsum("hqk,khd->qhd", weights, values).reshape(5, -1) @ o.T

    folded = attention(divide_outputs(v, scales), multiply_inputs(o, scales[source]))
    np.testing.assert_allclose(folded, attention(v, o), rtol=1e-3, atol=1e-2)


def test_shared_sources_get_one_scale():
    source = value_channels(HEADS, GROUPS, DIM)
    assert source[:DIM].tolist() == source[DIM : 2 * DIM].tolist() == list(range(DIM))
    assert source[3 * DIM] == DIM
    x = rows(20, HEADS * DIM)
    scheme = INT4_B32.fit(HEADS * DIM)
    assert awq.scales([matrix(4, 48)], x, scheme, source=source).scales.shape == (GROUPS * DIM,)


@pytest.mark.parametrize(
    ("matrices", "sample", "message"),
    [
        ([np.ones((2, 32)), np.ones((2, 64))], np.ones((1, 32)), "one width"),
        ([np.ones((2, 32))], np.ones((1, 64)), "one width"),
        ([np.ones((2, 32))], np.ones((0, 32)), "at least one row"),
        ([np.ones((2, 32))], np.full((1, 32), np.inf), "not finite"),
    ],
)
def test_what_does_not_agree_is_refused(matrices, sample, message):
    with pytest.raises(QuantError, match=message):
        awq.scales(matrices, sample, INT4_B32)


@pytest.mark.parametrize("scales", [np.ones(3), -np.ones(4), np.full(4, np.nan)])
def test_scales_must_be_positive_and_one_each(scales):
    with pytest.raises(QuantError, match="need 4 positive scales"):
        multiply_inputs(np.ones((2, 4), np.float32), scales)


def test_heads_must_share_evenly():
    with pytest.raises(QuantError, match="5 query heads cannot share 2"):
        value_channels(5, 2, 8)
