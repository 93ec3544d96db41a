"""The two mel front ends: published check values, and the formulas written out."""

import math

import numpy as np
import plain
import pytest
import torch

from antiphon.export.reference.mel import flow_mel, pad_to_codes, whisper_log_mel
from antiphon.runtime.mel import slaney_filters


def sine(samples, hz=440.0, rate=16000):
    n = torch.arange(samples, dtype=torch.float64)
    return (0.1 * torch.sin(2 * math.pi * hz * n / rate)).float()[None]


def test_check_values():
    """Contract D.3: one second of a 440 Hz sine, padded to 13 codes."""
    pcm = pad_to_codes(sine(16000))
    mel = whisper_log_mel(pcm, 128)
    assert pcm.shape == (1, 16640)
    assert mel.shape == (1, 128, 104)
    np.testing.assert_allclose(mel.mean(), -0.766708, atol=2e-6)
    np.testing.assert_allclose(mel.max(), 1.135869, atol=2e-6)
    np.testing.assert_allclose(mel.min(), -0.864131, atol=2e-6)
    np.testing.assert_allclose(mel.max() - mel.min(), 2.0, atol=1e-6)


def test_maximum_of_the_sine():
    """Contract D.4: 0.54 in log10 units before the shift and the scale."""
    assert round(float(whisper_log_mel(sine(16000), 128).max()) * 4 - 4, 2) == 0.54


def slaney(hz):
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000) / math.log(6.4)


def hertz(mel):
    """Inverse of `slaney`, by bisection."""
    low, high = 0.0, 20000.0
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if slaney(middle) < mel else (low, middle)
    return low


@pytest.mark.parametrize(
    ("rate", "n_fft", "bins"), [(16000, 400, 128), (16000, 400, 80), (24000, 1920, 80)]
)
def test_filters_are_triangles_of_unit_area_on_slaneys_scale(rate, n_fft, bins):
    filters = slaney_filters(rate, n_fft, bins, 8000.0)
    assert filters.shape == (bins, n_fft // 2 + 1)
    hz = np.arange(n_fft // 2 + 1) * rate / n_fft
    edges = [hertz(i * slaney(8000.0) / (bins + 1)) for i in range(bins + 2)]
    for row, a, b, c in zip(filters, edges, edges[1:], edges[2:], strict=False):
        triangle = np.interp(hz, [a, b, c], [0, 2 / (c - a), 0])
        np.testing.assert_allclose(row, triangle, atol=1e-8)


def test_filters_equal_the_extractors():
    audio_utils = pytest.importorskip("transformers.audio_utils")
    for rate, n_fft, bins in ((16000, 400, 128), (24000, 1920, 80)):
        expected = audio_utils.mel_filter_bank(
            n_fft // 2 + 1, bins, 0.0, 8000.0, rate, norm="slaney", mel_scale="slaney"
        )
        np.testing.assert_allclose(slaney_filters(rate, n_fft, bins, 8000.0), expected.T, atol=1e-8)


def power(pcm, n_fft, hop, pad):
    """|DFT|² of reflect-padded, Hann-windowed frames [bins, T], by the definition."""
    x = np.pad(pcm, pad, mode="reflect")
    frames = [x[s : s + n_fft] * plain.hann(n_fft) for s in range(0, len(x) - n_fft + 1, hop)]
    angle = 2 * np.pi * np.outer(np.arange(n_fft // 2 + 1), np.arange(n_fft)) / n_fft
    return np.square(np.cos(angle) @ np.array(frames).T) + np.square(
        np.sin(angle) @ np.array(frames).T
    )


def test_whisper_log_mel_by_the_definition():
    pcm = np.random.default_rng(1).normal(0, 0.1, 2560)
    pcm[:1280] *= 1e-6  # so quiet that the floor shows
    spectrum = power(pcm, 400, 160, 200)[:, :-1]
    assert spectrum.shape[1] == 16
    log = np.log10(np.maximum(slaney_filters(16000, 400, 80, 8000.0) @ spectrum, 1e-10))
    expected = (np.maximum(log, log.max() - 8) + 4) / 4
    got = whisper_log_mel(torch.tensor(pcm, dtype=torch.float32)[None], 80)[0]
    assert (expected == expected.min()).any()
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_flow_mel_by_the_definition():
    pcm = np.random.default_rng(2).normal(0, 0.1, 4800)
    pcm[2400:] = 0
    magnitude = np.sqrt(power(pcm, 1920, 480, 720) + 1e-9)
    expected = np.log(np.maximum(slaney_filters(24000, 1920, 80, 8000.0) @ magnitude, 1e-5))
    got = flow_mel(torch.tensor(pcm, dtype=torch.float32)[None])[0]
    assert got.shape == (80, 10)
    np.testing.assert_allclose(got, expected, atol=2e-4)


@pytest.mark.parametrize("samples", [1920, 1921, 2399, 2400])
def test_one_flow_frame_per_480_samples(samples):
    assert flow_mel(torch.zeros(1, samples)).shape == (1, 80, samples // 480)


@pytest.mark.parametrize(("samples", "codes"), [(1, 1), (1279, 1), (1280, 1), (1281, 2)])
def test_padding_to_whole_codes(samples, codes):
    padded = pad_to_codes(torch.ones(2, samples))
    assert padded.shape == (2, 1280 * codes)
    assert padded.sum() == 2 * samples


def test_segments_of_a_batch_have_their_own_maximum():
    loud, quiet = sine(1280), 1e-3 * sine(1280)
    both = whisper_log_mel(torch.cat((loud, quiet)), 80)
    torch.testing.assert_close(both[1:], whisper_log_mel(quiet, 80))
