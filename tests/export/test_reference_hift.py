"""The vocoder against the contract read a second time, and the facts that its exports rely on."""

import math
from dataclasses import replace

import numpy as np
import plain
import pytest
import torch
import torch.nn.functional as F

from antiphon.export.reference.config import HiftConfig
from antiphon.export.reference.hift import Hift, Snake, Source

CONFIG = HiftConfig(mel_bins=6, base_channels=16, f0_channels=8)


@pytest.fixture(scope="module")
def hift():
    torch.manual_seed(15)
    module = Hift(CONFIG).eval().requires_grad_(False)
    for name, tensor in module.named_parameters():
        if name.endswith((".alpha", "original0")):  # ones would hide a factor
            tensor.mul_(0.5 + torch.rand(tensor.shape))
    module.f0_predictor.classifier.bias[:] = 120.0
    return module


@pytest.fixture(scope="module")
def mel():
    return torch.randn(1, 6, 40, generator=torch.Generator().manual_seed(16))


def randn(*shape, seed=17):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- F0 and source (contract F.3, steps 1 to 3)


def test_f0_by_hand(hift, mel):
    w = plain.fuse_weight_norm(plain.weights_of(hift.f0_predictor))
    x = mel[0, :, :12].double().numpy()
    for i in range(0, 10, 2):
        x = plain.conv(w, f"condnet.{i}", x, pad=(1, 1))
        x = np.where(x > 0, x, np.exp(np.minimum(x, 0)) - 1)
    expected = np.abs(plain.linear(w, "classifier", x.T))[:, 0]
    np.testing.assert_allclose(hift.f0_predictor(mel[:, :, :12])[0], expected, rtol=1e-5)


def melody(frames=30):
    """F0 [1, T] with silence, the voicing threshold, and every reason for the phase to wrap."""
    f0 = 300 * torch.rand(1, frames, generator=torch.Generator().manual_seed(18)) + 60
    if frames > 9:
        f0[0, 5:9] = torch.tensor([0.0, 10.0, 10.001, 3000.0])
    return f0


def literal_phase(f0, harmonics=9):
    """The procedure of the published code, at sample rate: repeat, resample, add up, resample."""
    repeated = f0.repeat_interleave(480, 1)[:, None]  # [1, 1, 480T]
    order = torch.arange(1, harmonics + 1, dtype=f0.dtype)[:, None]
    rho = (repeated * order / 24000) % 1
    rho[:, :, 0] += torch.rand(harmonics, dtype=f0.dtype)  # initial phases, without effect
    low = F.interpolate(rho, scale_factor=1 / 480, mode="linear")
    phase = torch.cumsum(low, dim=2) * 2 * math.pi
    return F.interpolate(phase * 480, scale_factor=480.0, mode="linear")  # [1, 9, 480T]


def harmonic(source, index):
    """Make the mixer pass one harmonic only, small enough that tanh changes nothing to speak of."""
    source.l_linear.weight.zero_()
    source.l_linear.bias.zero_()
    source.l_linear.weight[0, index] = 1.0
    return source


@pytest.mark.parametrize("index", [0, 1, 8])
def test_closed_form_of_the_phase_equals_the_literal_procedure(index):
    source = harmonic(Source(CONFIG).double().requires_grad_(False), index)
    f0 = melody().double()
    got = torch.atanh(source(f0, torch.zeros(1, 14400, 9, dtype=torch.float64)))[0]
    voiced = (f0 > 10).repeat_interleave(480, 1)[0]
    expected = 0.1 * literal_phase(f0)[0, index].sin() * voiced
    torch.testing.assert_close(got, expected, atol=1e-9, rtol=0)


def test_closed_form_in_single_precision():
    """The phase reaches 1e5 rad, where a float32 step is 0.008: the order of products matters."""
    source = harmonic(Source(CONFIG).requires_grad_(False), 8)
    f0 = melody(450)
    got = torch.atanh(source(f0, torch.zeros(1, 450 * 480, 9)))[0]
    voiced = (f0 > 10).repeat_interleave(480, 1)[0]
    phase = literal_phase(f0)[0, 8]
    assert phase.max() > 1e5
    assert (got - 0.1 * phase.sin() * voiced).abs().max() < 1e-6  # of the tanh and its inverse


def test_phase_by_the_formula():
    """Φ_i = 2π·480·Σ ρ_k, interpolated at max(0, (n + 0.5)/480 - 0.5), right edge clamped."""
    f0 = melody(6).double().numpy()[0]
    at = np.clip((np.arange(2880) + 0.5) / 480 - 0.5, 0, 5)
    phase = 2 * np.pi * 480 * np.cumsum((3 * f0 / 24000) % 1)
    expected = np.interp(at, np.arange(6), phase)
    np.testing.assert_allclose(literal_phase(torch.tensor(f0)[None])[0, 2], expected, rtol=1e-12)


def test_noise_is_small_where_voiced_and_large_elsewhere():
    source = harmonic(Source(CONFIG).double().requires_grad_(False), 4)
    f0 = torch.tensor([[0.0, 10.0, 10.5, 200.0]], dtype=torch.float64)
    noise = randn(1, 1920, 9).double()
    silent = torch.zeros_like(noise)
    added = torch.atanh(source(f0, noise)) - torch.atanh(source(f0, silent))
    ratio = (added / noise[:, :, 4])[0].reshape(4, 480)
    for row, expected in zip(ratio, [0.1 / 3, 0.1 / 3, 0.003, 0.003], strict=True):
        torch.testing.assert_close(row, torch.full_like(row, expected), rtol=1e-6, atol=0)


def test_source_mixes_all_harmonics(hift):
    f0, noise = melody(4), randn(1, 1920, 9)
    waves = 0.1 * literal_phase(f0.double())[0].sin().T  # all voiced
    waves = (waves + 0.003 * noise[0]).numpy()
    expected = np.tanh(plain.linear(plain.weights_of(hift.m_source), "l_linear", waves))[:, 0]
    np.testing.assert_allclose(hift.m_source(f0, noise)[0], expected, atol=1e-5)


def test_cached_source_overwrites_the_first_samples(hift, mel):
    noise, cached = randn(1, 40 * 480, 9), 0.1 * randn(1, 3840)
    pcm, source = hift(mel, noise, cached)
    _, own = hift(mel, noise)
    assert torch.equal(source[:, :3840], cached)
    assert torch.equal(source[:, 3840:], own[:, 3840:])
    assert torch.equal(pcm, hift.decode(mel, source))


# --- decoder (contract F.3, step 4)


def stft_by_hand(source):
    """18 filters of 16 taps over the source, 8 samples reflected on each side (contract L)."""
    x = np.pad(source, 8, mode="reflect")
    angle = 2 * np.pi * np.outer(np.arange(9), np.arange(16)) / 16
    filters = np.concatenate((np.cos(angle), -np.sin(angle))) * plain.hann(16)
    return np.stack([filters @ x[s : s + 16] for s in range(0, len(x) - 15, 4)], axis=1)


def istft_by_hand(z):
    """Windowed inverse DFT of every column, overlapped, 8 samples cut, over the envelope."""
    n = np.arange(16)
    out = np.zeros(4 * (z.shape[1] - 1) + 16)
    envelope = np.zeros_like(out)
    weights = np.array([1.0, *[2.0] * 7, 1.0])  # the other half of the spectrum mirrors this one
    for t in range(z.shape[1]):
        waves = np.exp(2j * np.pi * np.outer(np.arange(9), n) / 16)
        frame = (weights[:, None] * z[:, t : t + 1] * waves).real.sum(0) / 16
        out[4 * t : 4 * t + 16] += frame * plain.hann(16)
        envelope[4 * t : 4 * t + 16] += plain.hann(16) ** 2
    return out[8:-8] / envelope[8:-8], envelope[8:-8]


def resblock(w, x, kernel):
    for j, dilation in enumerate((1, 3, 5)):
        h = x
        for acts, convs, d in (("activations1", "convs1", dilation), ("activations2", "convs2", 1)):
            alpha = w[f"{acts}.{j}.alpha"][:, None]
            h = h + np.sin(alpha * h) ** 2 / (alpha + 1e-9)
            side = d * (kernel - 1) // 2
            h = plain.conv(w, f"{convs}.{j}", h, pad=(side, side), dilation=d)
        x = x + h
    return x


def decode_by_hand(w, mel, source):
    spectrum = stft_by_hand(source)
    x = plain.conv(w, "conv_pre", mel, pad=(3, 3))
    ups, downs = ((8, 4), (5, 3), (3, 2)), ((15, 7), (3, 1), (1, 0))
    for i, (up, down) in enumerate(zip(ups, downs, strict=True)):
        x = plain.conv_transposed(w, f"ups.{i}", plain.leaky_relu(x, 0.1), *up)
        if i == 2:
            x = np.concatenate((x[:, 1:2], x), axis=1)
        s = plain.conv(w, f"source_downs.{i}", spectrum, stride=down[0], pad=(down[1], down[1]))
        x = x + resblock(plain.under(w, f"source_resblocks.{i}"), s, (7, 7, 11)[i])
        kernels = enumerate((3, 7, 11))
        x = sum(resblock(plain.under(w, f"resblocks.{3 * i + j}"), x, k) for j, k in kernels) / 3
    x = plain.conv(w, "conv_post", plain.leaky_relu(x, 0.01), pad=(3, 3))
    z = np.minimum(np.exp(x[:9]), 100.0) * np.exp(1j * np.sin(x[9:]))
    return istft_by_hand(z)[0]


def test_samples_equal_the_contract(hift, mel):
    source = 0.1 * randn(1, 4 * 480)
    w = plain.fuse_weight_norm(plain.weights_of(hift))
    expected = decode_by_hand(w, mel[0, :, :4].double().numpy(), source[0].double().numpy())
    got = hift.decode(mel[:, :, :4], source)[0]
    assert got.shape == (1920,)
    assert 1e-3 < np.abs(expected).max() < 0.99
    np.testing.assert_allclose(got, expected, atol=2e-5)


def test_snake_with_small_factors():
    snake, x = Snake(3).requires_grad_(False).double(), randn(1, 3, 5).double()
    snake.alpha[:] = torch.tensor([1e-4, 0.5, -2.0])
    alpha = snake.alpha[:, None]
    expected = (alpha * x).sin() ** 2 / (alpha + 1e-9)
    torch.testing.assert_close(snake(x) - x, expected, rtol=1e-6, atol=0)


def test_loud_spectra_are_clipped(hift, mel):
    """Magnitudes at 100, then samples at 0.99; the first is only seen without the second."""
    source = 0.1 * randn(1, 2 * 480)
    state = hift.state_dict()
    state["conv_post.bias"] = state["conv_post.bias"] + torch.tensor(
        [5.2, 4.0, 5.0] * 3 + [0.0] * 9
    )
    for limit in (1e6, 0.99):
        loud = Hift(replace(CONFIG, audio_limit=limit)).eval().requires_grad_(False)
        loud.load_state_dict(state)
        w = plain.fuse_weight_norm(plain.weights_of(loud))
        expected = decode_by_hand(w, mel[0, :, :2].double().numpy(), source[0].double().numpy())
        got = loud.decode(mel[:, :, :2], source)[0].numpy()
        assert np.abs(got).max() <= np.float32(limit)
        np.testing.assert_allclose(got, np.clip(expected, -limit, limit), atol=2e-3)


def test_spectrum_of_the_source(hift):
    source = 0.1 * randn(1, 480)
    np.testing.assert_allclose(
        hift._stft(source)[0], stft_by_hand(source[0].double().numpy()), atol=1e-6
    )


def test_envelope_of_the_inverse_transform():
    """Contract L: 1.5 but for the first four samples and the last three."""
    pcm, envelope = istft_by_hand(np.ones((9, 25), complex))
    assert len(pcm) == 96
    np.testing.assert_allclose(envelope[:4], [1.25, 1.40473, 1.47855, 1.49855], atol=5e-6)
    np.testing.assert_allclose(envelope[-3:], [1.49855, 1.47855, 1.40473], atol=5e-6)
    np.testing.assert_allclose(envelope[4:-3], 1.5)


# --- how far a frame reaches (contract F.3, last paragraph)


def test_reach_of_a_frame_through_the_decoder():
    """13.1 frames to each side; by the gradient, because values fade below rounding before that."""
    hift = Hift(CONFIG).eval().requires_grad_(False).double()
    mel = randn(1, 6, 60).double().requires_grad_()
    pcm = hift.decode(mel, 0.1 * randn(1, 60 * 480).double())[0]
    first, last = 8101, 21183  # frame 30 begins at sample 14400
    assert (round(30 - first / 480, 1), round((last + 1) / 480 - 31, 1)) == (13.1, 13.1)
    for sample, reached in ((first - 1, 0), (first, 1), (last, 1), (last + 1, 0)):
        (gradient,) = torch.autograd.grad(pcm[sample], mel, retain_graph=True)
        assert bool(gradient[0, :, 30].any()) == reached


def test_reach_of_a_frame_through_f0(hift):
    mel = randn(1, 6, 60)
    changed = mel.clone()
    changed[:, :, 30] += 1.0
    moved = (hift.f0_predictor(mel) != hift.f0_predictor(changed))[0].nonzero().flatten()
    assert moved.tolist() == list(range(25, 36))
