"""Voices compared, and heard by somebody else."""

import numpy as np
import pytest
from spoken import question

from antiphon.export.proof.sound import PACKAGE, find_listener, mel_distance_db
from antiphon.runtime.resample import resample


@pytest.fixture(scope="module")
def speech() -> np.ndarray:
    """At 24 kHz."""
    return resample(question(), 16000, 24000)


def test_the_distance_of_a_voice_to_itself_is_nothing(speech):
    assert mel_distance_db(speech, speech) == 0
    assert mel_distance_db(speech, speech[:-100]) == pytest.approx(0, abs=0.1)  # the end is cut


def test_half_as_loud_is_six_decibels_away():
    noise = np.random.default_rng(0).standard_normal(48000).astype("f4")
    assert mel_distance_db(noise, noise / 2) == pytest.approx(6.02, abs=0.01)


def test_silence_is_not_infinitely_far(speech):
    assert 10 < mel_distance_db(speech, np.zeros_like(speech)) < 200


def test_noise_lowers_every_opinion(speech):
    listener = find_listener()
    if listener is None:
        pytest.skip(f"the package {PACKAGE} is not installed")
    noise = np.random.default_rng(0).standard_normal(len(speech)).astype("f4")
    clean = listener.opinion(speech)
    noisy = listener.opinion(speech + 0.03 * noise)
    assert 1 < noisy.overall < clean.overall < 5
    assert noisy.background < clean.background
