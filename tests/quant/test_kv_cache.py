"""int8 keys and values: the error bound, positions that turn, what the kernel writes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from antiphon.quant.kv_cache import decode, encode, peaks, scales
from antiphon.quant.schemes import QuantError

ROWS = npst.arrays(np.float32, (2, 3, 8), elements=st.floats(-1e6, 1e6, width=32))  # [G, S, D]


@given(rows=ROWS)
def test_rows_that_were_seen_are_within_half_a_scale(rows):
    scale = scales(peaks(rows))
    assert scale.shape == (2, 1, 8)
    codes = encode(rows, scale)
    assert np.abs(codes.astype(int)).max() <= 127
    assert (np.abs(decode(codes, scale) - rows) <= 0.5001 * scale).all()


@given(rows=ROWS, angle=st.floats(0, 6.2832))
@settings(max_examples=50)
def test_keys_may_turn_to_any_position(rows, angle):
    scale = scales(peaks(rows, rotary=True))
    a, b = rows[..., :4].astype(np.float64), rows[..., 4:].astype(np.float64)
    turned = np.concatenate(
        [a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], axis=-1
    ).astype(np.float32)
    assert (np.abs(decode(encode(turned, scale), scale) - turned) <= 0.5001 * scale).all()


def test_peaks_of_pieces_join():
    rows = np.random.default_rng(0).standard_normal((4, 2, 9, 8)).astype(np.float32)  # [B, G, S, D]
    pieces = [peaks(rows[:1]), peaks(rows[1:, :, :3]), peaks(rows[1:, :, 3:])]
    np.testing.assert_array_equal(np.maximum.reduce(pieces), peaks(rows))
    np.testing.assert_array_equal(peaks(rows), np.abs(rows).max(axis=(0, 2)))


def test_a_scale_per_channel_keeps_small_channels():
    rows = np.random.default_rng(0).standard_normal((2, 100, 8)).astype(np.float32)
    rows[:, :, 3] *= 50  # as keys have them
    own = scales(peaks(rows))
    shared = np.broadcast_to(own.max(axis=2, keepdims=True), own.shape)
    error = [np.square(decode(encode(rows, s), s) - rows).mean() for s in (own, shared)]
    assert error[0] < error[1] / 5


def test_what_exceeds_the_range_is_clipped():
    rows = np.full((1, 1, 2), 3, np.float32)
    assert encode(2 * rows, scales(peaks(rows))).tolist() == [[[127, 127]]]
    assert encode(-2 * rows, scales(peaks(rows))).tolist() == [[[-128, -128]]]


def test_a_channel_that_stays_silent_has_a_usable_scale():
    scale = scales(peaks(np.zeros((2, 3, 8), np.float32)))
    assert (scale > 0).all()


@pytest.mark.parametrize(
    "attempt",
    [
        lambda: peaks(np.full((1, 1, 2), np.nan, np.float32)),
        lambda: scales(np.full((1, 2), np.inf, np.float32)),
        lambda: scales(np.full((1, 2), -1, np.float32)),
    ],
)
def test_what_cannot_be_a_range_is_refused(attempt):
    with pytest.raises(QuantError):
        attempt()
