"""Holding the sound: silent at once, nothing lost, no click."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.playback import FADE_SAMPLES, Playback


def read(ring, samples=240):
    out = np.full(samples, 9, np.float32)
    return ring.read(out), out


def test_holding_is_silent_and_loses_nothing():
    ring = Playback(5000)
    pcm = np.linspace(0.5, 1, 3000, dtype=np.float32)
    ring.write(pcm)
    assert read(ring)[0] == 240
    ring.hold()
    taken, fading = read(ring)
    assert taken == FADE_SAMPLES
    assert abs(fading[0] - pcm[240]) < 0.01
    assert (np.diff(fading[: FADE_SAMPLES + 1]) < 0).all()
    assert not fading[FADE_SAMPLES:].any()
    for _ in range(5):
        taken, out = read(ring)
        assert (taken, out.any(), ring.held) == (0, False, True)
    ring.release()
    taken, out = read(ring)
    start = 240 + FADE_SAMPLES
    assert (taken, ring.position) == (240, start + 240)
    assert (np.diff(out[:FADE_SAMPLES]) > 0).all()
    np.testing.assert_array_equal(out[FADE_SAMPLES:], pcm[start + FADE_SAMPLES : start + 240])


def test_what_is_flushed_while_held_is_never_played():
    ring = Playback(1000)
    ring.write(np.ones(600, np.float32))
    read(ring)
    ring.hold()
    read(ring)
    ring.flush()
    ring.release()
    assert not read(ring)[1].any()
    ring.write(np.full(300, 2, np.float32))
    np.testing.assert_array_equal(read(ring)[1], np.full(240, 2))


@given(
    actions=st.lists(
        st.one_of(st.integers(1, 400), st.sampled_from(["hold", "release"])), max_size=40
    )
)
def test_every_sample_is_played_once_in_order(actions):
    ring = Playback(20_000)
    ring.write(np.arange(1, 16_001, dtype=np.float32))
    position = 0
    for action in actions:
        if action == "hold":
            ring.hold()
        elif action == "release":
            ring.release()
        else:
            taken, out = read(ring, action)
            expected = np.arange(position + 1, position + 1 + taken)
            assert (np.abs(out[:taken]) <= expected).all()  # faded, or as they are
            edge = min(FADE_SAMPLES, action)
            np.testing.assert_array_equal(out[edge:taken], expected[edge:])
            assert not out[taken:].any()
            position += taken
            assert ring.position == position
            assert taken in (0, edge) if ring.held else taken == action
