"""The voice detector on real speech, on silence and on noise."""

from __future__ import annotations

import numpy as np
import pytest
from spoken import question, silence

from antiphon.runtime.errors import CorruptFile
from antiphon.runtime.vad import MODEL, RATE_HZ, WINDOW_SAMPLES, VoiceDetector


@pytest.fixture(scope="module")
def detector():
    return VoiceDetector()


def probabilities(detector, pcm):
    detector.reset()
    whole = len(pcm) - len(pcm) % WINDOW_SAMPLES
    return np.array([detector.push(w) for w in pcm[:whole].reshape(-1, WINDOW_SAMPLES)])


@pytest.mark.parametrize("name", ["number_after_twelve", "color_grass"])
def test_speech_is_found_where_it_is(detector, name):
    pcm = np.concatenate([silence(500), question(name), silence(500)])
    found = probabilities(detector, pcm) > 0.5
    first, last = np.flatnonzero(found)[[0, -1]] * WINDOW_SAMPLES / RATE_HZ
    end_s = len(pcm) / RATE_HZ - 0.5
    assert found.mean() > 0.4
    assert 0.4 < first < 0.65
    assert end_s - 0.25 < last < end_s + 0.15


@pytest.mark.parametrize("level", [0.0, 1e-3, 0.1])
def test_noise_is_no_speech(detector, level):
    noise = level * np.random.default_rng(0).standard_normal(2 * RATE_HZ)
    assert probabilities(detector, noise.astype("f4")).max() < 0.35


def test_a_reset_forgets_the_stream(detector):
    once = probabilities(detector, question())
    detector.push(np.ones(WINDOW_SAMPLES, "f4"))
    np.testing.assert_array_equal(probabilities(detector, question()), once)


def test_the_window_may_be_overwritten(detector):
    once = probabilities(detector, question())
    detector.reset()
    buffer, again = np.empty(WINDOW_SAMPLES, np.float32), []
    for start in range(0, len(once) * WINDOW_SAMPLES, WINDOW_SAMPLES):
        buffer[:] = question()[start : start + WINDOW_SAMPLES]
        again.append(detector.push(buffer))
        buffer[:] = 9
    np.testing.assert_array_equal(again, once)


def test_another_model_is_refused(tmp_path):
    with pytest.raises(CorruptFile, match="No such file"):
        VoiceDetector(tmp_path / "none.onnx")
    changed = bytearray(MODEL.read_bytes())
    changed[1000] ^= 1
    (tmp_path / "changed.onnx").write_bytes(changed)
    with pytest.raises(CorruptFile, match="is not that of the voice detector"):
        VoiceDetector(tmp_path / "changed.onnx")


def test_the_licence_lies_beside_the_model():
    assert "Silero Team" in (MODEL.parent / "LICENSE-silero-vad").read_text()
