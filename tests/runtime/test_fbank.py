"""Kaldi's filter bank: numbers of another implementation, and its formula written out."""

from __future__ import annotations

import math

import numpy as np
import pytest

from antiphon.runtime.fbank import fbank, speaker_features

GOLDEN = {  # torchaudio 2.11, compliance.kaldi.fbank(num_mel_bins=80, dither=0), of `sound()`
    (0, 0): -4.264220,
    (5, 3): -11.521078,
    (20, 7): -11.621099,
    (40, 40): -4.789184,
    (49, 62): -2.120242,
    (57, 33): -15.942385,
    (60, 79): -15.942385,
    (70, 15): -8.978934,
    (97, 79): 7.205586,
}
GOLDEN_MEANS = [  # of every twelfth frame
    -4.03716,
    -4.48017,
    -4.90543,
    -5.07671,
    -5.28551,
    -15.94238,
    -5.24129,
    -5.09721,
    -5.13206,
]


def sound() -> np.ndarray:
    """One second: an offset, a rising tone with a dip, a hiss, and 62 ms of nothing."""
    n = np.arange(16000)
    t = n / 16000
    tone = 0.3 * np.sin(2 * np.pi * (60 * t + 3800 * t * t)) * np.minimum(1, 4 * np.abs(t - 0.5))
    hiss = 0.01 * np.sin(2 * np.pi * np.mod(n * n * 0.6180339887498949, 1))
    pcm = (0.05 + tone + hiss).astype(np.float32)
    pcm[9000:10000] = 0
    return pcm


def test_equals_torchaudio():
    features = fbank(sound())
    assert (features.shape, features.dtype) == ((98, 80), np.float32)
    for place, value in GOLDEN.items():
        assert features[place] == pytest.approx(value, abs=1e-3), place  # float32 there
    np.testing.assert_allclose(features[::12].mean(axis=1), GOLDEN_MEANS, atol=1e-4)
    assert features.max() == pytest.approx(8.719338, abs=1e-5)
    assert (features == features.min()).sum() == 325


def mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)  # the same scale in other units


def height(k: int, left: float, centre: float, right: float) -> float:
    """Of a triangle at the k-th of 512 frequencies."""
    at = mel(k * 31.25)
    return max(0.0, min((at - left) / (centre - left), (right - at) / (right - centre)))


def by_the_formula(pcm: np.ndarray) -> np.ndarray:
    """One frame, one bin at a time, from the definitions."""
    window = [(0.5 - 0.5 * math.cos(2 * math.pi * i / 399)) ** 0.85 for i in range(400)]
    angle = -2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512
    dft = np.exp(angle)
    low, high = mel(20), mel(8000)
    edges = [low + (high - low) * i / 81 for i in range(82)]
    triangles = list(zip(edges, edges[1:], edges[2:], strict=False))
    rows = []
    for start in range(0, len(pcm) - 399, 160):
        x = pcm[start : start + 400].astype(np.float64)
        x = x - x.sum() / 400
        x = [x[i] - 0.97 * x[max(0, i - 1)] for i in range(400)]
        power = np.abs(dft @ np.multiply(x, window)) ** 2
        energies = [sum(power[k] * height(k, *t) for k in range(256)) for t in triangles]
        rows.append([math.log(max(e, 2.0**-23)) for e in energies])
    return np.array(rows)


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_equals_the_formula(scale):
    pcm = (scale * sound()[8900:9860]).astype(np.float32)
    expected = by_the_formula(pcm)
    np.testing.assert_allclose(fbank(pcm), expected, atol=2e-5)
    floor = math.log(2.0**-23)
    assert (expected == floor).any()
    assert (expected > floor).any()


@pytest.mark.parametrize(
    ("samples", "frames"), [(0, 0), (399, 0), (400, 1), (559, 1), (560, 2), (16000, 98)]
)
def test_whole_windows_only(samples, frames):
    assert fbank(np.ones(samples, np.float32)).shape == (frames, 80)


def test_an_offset_is_no_sound_and_the_input_stays_as_it_was():
    pcm = sound()[:4000]
    kept = pcm.copy()
    np.testing.assert_allclose(fbank(pcm), fbank(pcm + np.float32(0.25)), atol=2e-3)
    np.testing.assert_array_equal(pcm, kept)


def test_the_speaker_encoder_hears_no_loudness():
    pcm = sound()[:8000]
    features = speaker_features(pcm)
    np.testing.assert_allclose(features.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(features, fbank(pcm) - fbank(pcm).mean(axis=0), atol=1e-6)
    loud = 4 * pcm  # far above the floor, four times as loud is only more of the mean
    above = fbank(pcm).min(axis=0) > -12
    assert above.any()
    np.testing.assert_allclose(speaker_features(loud)[:, above], features[:, above], atol=1e-4)
