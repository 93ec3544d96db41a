"""Codes to samples: 1920 per code, in steps of one engine call, droppable at any of them."""

import numpy as np
import pytest
import tiny_voice
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.errors import ConfigError
from antiphon.runtime.flow import FlowDecoder
from antiphon.runtime.vocoder import Vocoder
from antiphon.runtime.voice import SpeechDecoder

CODES = np.random.default_rng(9).integers(0, 40, 30)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_voice.bundle(tmp_path_factory.mktemp("voice"))


@pytest.fixture(scope="module")
def decoder(bundle):
    return SpeechDecoder(FlowDecoder(bundle, "5"), Vocoder(bundle))


def speak(decoder, codes, cuts=()):
    pieces = np.split(codes, sorted(cuts))
    return np.concatenate([*map(decoder.push, pieces), decoder.finish()])


@settings(max_examples=12)
@given(count=st.integers(1, 20), cuts=st.lists(st.integers(0, 20), max_size=4))
def test_1920_samples_per_code(decoder, count, cuts):
    pcm = speak(decoder, CODES[:count], [c % (count + 1) for c in cuts])
    assert pcm.shape == (1920 * count,)
    assert np.isfinite(pcm).all()


def test_first_and_later_samples(decoder):
    """8 codes give 240 ms, then 5 codes give 400 ms (contract E.10)."""
    decoder.reset()
    counts = [len(decoder.push(CODES[i : i + 1])) for i in range(18)]
    heard = {i + 1: n for i, n in enumerate(counts) if n}
    assert heard == {8: 240 * 24, 13: 400 * 24, 18: 400 * 24}
    decoder.reset()


def test_steps_do_what_push_does(bundle):
    whole = speak(SpeechDecoder(FlowDecoder(bundle, "5"), Vocoder(bundle)), CODES[:13], [8])
    decoder = SpeechDecoder(FlowDecoder(bundle, "5"), Vocoder(bundle))
    pcm = []
    for piece in np.split(CODES[:13], [8]):
        decoder.feed(piece)
        while decoder.ready:
            pcm.append(decoder.step())
    decoder.end()
    while decoder.ready:
        pcm.append(decoder.step())
    np.testing.assert_array_equal(np.concatenate(pcm), whole)
    assert not decoder.ready


@pytest.mark.parametrize("calls", [0, 3, 11, 12, 20])
def test_a_dropped_reply_leaves_no_trace(bundle, calls):
    decoder = SpeechDecoder(FlowDecoder(bundle, "5"), Vocoder(bundle))
    decoder.feed(CODES[10:])
    for _ in range(calls):
        decoder.step()
    decoder.reset()
    assert not decoder.ready
    fresh = SpeechDecoder(FlowDecoder(bundle, "5"), Vocoder(bundle))
    np.testing.assert_allclose(speak(decoder, CODES[:6]), speak(fresh, CODES[:6]), atol=1e-6)


def test_a_reply_without_codes_is_refused_and_harms_nothing(decoder):
    decoder.reset()
    with pytest.raises(ConfigError, match="without codes"):
        decoder.finish()
    assert not decoder.ready
    assert len(speak(decoder, CODES[:1])) == 1920


def test_sizes_are_known(decoder):
    assert decoder.nbytes == decoder.flow.nbytes > 0
