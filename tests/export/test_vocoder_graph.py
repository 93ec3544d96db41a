"""The vocoder's graph equals the reference, noise injected; its constants are the contract's."""

import numpy as np
import onnx
import pytest
import tiny_voice
import torch

from antiphon.export.vocoder_graph import (
    analysis_filters,
    build_vocoder,
    envelope,
    synthesis_filters,
)
from antiphon.runtime.backend import Engine

START = {"phase": np.zeros((1, 9)), "phase_frame": np.array([0])}


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("vocoder") / "vocoder.onnx"
    return build_vocoder(tiny_voice.HIFT, tiny_voice.read(tiny_voice.hift()), path)


@pytest.fixture(scope="module")
def engine(path):
    return Engine.load(path)


def run(engine, mel, noise, tail, start=START):
    feeds = {"mel": mel.numpy(), "noise": noise.numpy(), "source_tail": tail.numpy()}
    return engine.run(feeds | start)


@pytest.mark.parametrize(("frames", "tail"), [(12, 0), (28, 3840), (9, 3600), (2, 0), (1, 0)])
def test_equals_the_reference(engine, frames, tail):
    generator = torch.Generator().manual_seed(frames)
    mel = torch.randn(1, 80, frames, generator=generator)
    noise = torch.randn(1, 480 * frames, 9, generator=generator)
    old = 0.1 * torch.randn(1, tail, generator=generator)
    pcm, source = tiny_voice.hift()(mel, noise, old if tail else None)
    out = run(engine, mel, noise, old)
    np.testing.assert_allclose(out["pcm"], pcm.numpy(), atol=1e-4)
    np.testing.assert_allclose(out["source"], source.numpy(), atol=1e-4)


def monotone(folder, hz):
    """An engine whose f0 is always `hz`."""
    model = tiny_voice.hift()
    tensors = tiny_voice.read(model)
    fixed = {
        "f0_predictor.classifier.bias": np.full(1, hz, np.float32),
        "f0_predictor.classifier.weight": np.zeros((1, 16), np.float32),
    }
    path = folder / "vocoder.onnx"
    build_vocoder(tiny_voice.HIFT, lambda n: fixed[n] if n in fixed else tensors(n), path)
    return Engine.load(path)


def test_below_the_threshold_there_is_only_noise(tmp_path):
    mel, noise = torch.zeros(1, 80, 4), torch.randn(1, 1920, 9)
    out = run(monotone(tmp_path, 9.0), mel, noise, torch.zeros(1, 0))
    mixed = tiny_voice.hift().m_source.l_linear(noise * 0.1 / 3).tanh()[..., 0].numpy()
    np.testing.assert_allclose(out["source"], mixed, atol=1e-6)


def test_the_phase_runs_on_from_a_given_frame(tmp_path):
    """A block that starts inside another goes on with its sines from a frame's centre."""
    engine = monotone(tmp_path, 130.1)
    mel, noise = torch.zeros(1, 80, 40), torch.zeros(1, 40 * 480, 9)
    whole = run(engine, mel, noise, torch.zeros(1, 0))["source"]
    first = run(engine, mel[:, :, :20], noise[:, : 20 * 480], torch.zeros(1, 0))
    start = {"phase": first["phase_out"], "phase_frame": np.array([8])}
    tail = torch.tensor(first["source"][:, 12 * 480 : 20 * 480 - 240])
    second = run(engine, mel[:, :, :28], noise[:, : 28 * 480], tail, start)["source"]
    assert whole.std() > 0.01
    # all but the last half frame, where the phase stands still
    np.testing.assert_allclose(second[:, :-240], whole[:, 12 * 480 : -240], atol=1e-4)


def test_transforms():
    np.testing.assert_allclose(
        envelope(16, 4, 30)[:5], [1.25, 1.40473, 1.47855, 1.49855, 1.5], atol=5e-6
    )
    np.testing.assert_allclose(
        envelope(16, 4, 30)[-4:], [1.5, 1.49855, 1.47855, 1.40473], atol=5e-6
    )
    x = np.random.default_rng(0).standard_normal(16)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(16) / 16)
    spectrum = np.fft.rfft(x * window)
    parts = np.concatenate((spectrum.real, spectrum.imag))
    np.testing.assert_allclose(analysis_filters(16)[:, 0] @ x, parts, atol=1e-5)
    back = parts @ synthesis_filters(16, 1.0)[:, 0]
    np.testing.assert_allclose(back, x * window * window, atol=1e-5)


def test_loud_magnitudes_are_clipped_not_infinite(tmp_path):
    model = tiny_voice.hift()
    tensors = tiny_voice.read(model)
    loud = lambda n: tensors(n) + (200 if n == "conv_post.bias" else 0)  # noqa: E731
    path = build_vocoder(tiny_voice.HIFT, loud, tmp_path / "vocoder.onnx")
    mel, noise = torch.zeros(1, 80, 4), torch.zeros(1, 1920, 9)
    pcm = run(Engine.load(path), mel, noise, torch.zeros(1, 0))["pcm"]
    assert np.isfinite(pcm).all()
    assert np.abs(pcm).max() <= np.float32(0.99)


def test_is_valid_and_standard(path):
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    assert [entry.domain for entry in model.opset_import] == [""]
