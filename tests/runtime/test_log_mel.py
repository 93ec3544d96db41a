"""Log-mel: equal to the reference, and the same for any chunking."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.export.reference.mel import pad_to_codes, whisper_log_mel
from antiphon.runtime.log_mel import Pcm, StreamingLogMel, log_mel

RNG = np.random.default_rng(5)


def noise(samples: int, gain: float = 0.1) -> Pcm:
    return (gain * RNG.standard_normal(samples)).astype(np.float32)


def push_in_pieces(pcm: Pcm, cuts: list[int], assumed_max: float) -> np.ndarray:
    stream = StreamingLogMel(80, assumed_max)
    edges = sorted(c % (len(pcm) + 1) for c in cuts)
    frames = [stream.push(piece) for piece in np.split(pcm, edges)]
    return np.concatenate([*frames, stream.finish()], axis=1)


@pytest.mark.parametrize("samples", [1, 200, 201, 1280, 1281, 16_000])
@pytest.mark.parametrize("bins", [80, 128])
def test_offline_equals_reference(samples: int, bins: int) -> None:
    pcm = noise(samples)
    expected = whisper_log_mel(pad_to_codes(torch.tensor(pcm)[None]), bins)[0].numpy()
    np.testing.assert_allclose(log_mel(pcm, bins), expected, atol=2e-5)


def test_contract_check_values() -> None:
    """Contract D.3: a 440 Hz sine of amplitude 0.1, one second."""
    mel = log_mel((0.1 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)).astype("f4"), 128)
    assert mel.shape == (128, 104)
    np.testing.assert_allclose(
        [mel.mean(), mel.max(), mel.min()], [-0.766708, 1.135869, -0.864131], atol=2e-5
    )


@settings(max_examples=25)
@given(
    samples=st.integers(0, 6000),
    cuts=st.lists(st.integers(0, 6000), max_size=12),
    assumed=st.sampled_from([-20.0, 0.5, 1.5]),
)
def test_streaming_equals_one_push(samples: int, cuts: list[int], assumed: float) -> None:
    pcm = noise(samples) * np.linspace(0, 1, samples, dtype=np.float32)
    mel = log_mel(pcm, 80, assumed)
    assert mel.shape == (80, 8 * -(-samples // 1280))
    np.testing.assert_allclose(push_in_pieces(pcm, cuts, assumed), mel, atol=1e-6)


def test_rule_equals_offline_once_the_maximum_is_known() -> None:
    pcm = np.concatenate([np.zeros(4000, np.float32), noise(6000)])
    offline = log_mel(pcm, 80)
    peak = 4 * float(offline.max()) - 4  # undo (v + 4) / 4
    np.testing.assert_allclose(log_mel(pcm, 80, peak), offline, atol=1e-5)
    assert log_mel(pcm, 80, peak - 2)[:, 0].max() < offline[:, 0].min() - 0.3  # silence sinks


def test_frames_are_causal() -> None:
    """Frame f is final once 160 f + 200 samples are there: code t needs 1280 t + 1320 here."""
    pcm = noise(4000)
    stream = StreamingLogMel(80, 1.0)
    for sample in range(0, 4000, 40):
        stream.push(pcm[sample : sample + 40])
    assert stream.samples == 4000
    after = StreamingLogMel(80, 1.0).push(pcm[:1320])
    assert after.shape[1] == 8
    assert StreamingLogMel(80, 1.0).push(pcm[:1319]).shape[1] == 7


def test_a_copy_is_a_snapshot() -> None:
    pcm = noise(5000)
    stream = StreamingLogMel(80, -20.0)
    first = stream.push(pcm[:1700])
    saved = copy.copy(stream)
    stream.push(noise(900, 3.0))
    stream.finish()
    mel = np.concatenate([first, saved.push(pcm[1700:]), saved.finish()], axis=1)
    np.testing.assert_allclose(mel, log_mel(pcm, 80, -20.0), atol=1e-6)
