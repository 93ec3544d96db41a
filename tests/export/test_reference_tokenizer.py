"""The speech tokenizer against the contract read a second time, and its causality to the sample."""

import math
from dataclasses import replace

import numpy as np
import plain
import pytest
import torch

from antiphon.export.reference.config import TokenizerConfig
from antiphon.export.reference.mel import pad_to_codes, whisper_log_mel
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

CONFIG = TokenizerConfig(
    d_model=32,
    encoder_attention_heads=2,
    encoder_ffn_dim=48,
    quantize_position=2,
    quantize_vocab_size=64,
    num_mel_bins=20,
)


@pytest.fixture(scope="module")
def tokenizer():
    torch.manual_seed(9)
    module = SpeechTokenizer(CONFIG).eval().requires_grad_(False)
    for tensor in module.parameters():
        if tensor.ndim == 1:
            tensor.add_(0.2 * torch.randn(tensor.shape))
    return module


@pytest.fixture(scope="module")
def pcm():
    return 0.1 * torch.randn(8 * 1280, generator=torch.Generator().manual_seed(10))


def pooled(tokenizer, pcm):
    return tokenizer.encoder(whisper_log_mel(pad_to_codes(pcm[None]), 20))[0]


def frames_by_hand(w, mel):
    x = plain.gelu(plain.conv(w, "conv1", mel, pad=(2, 0)))
    x = plain.gelu(plain.conv(w, "conv2", x, pad=(2, 0), stride=2)).T
    x = x + w["embed_positions.weight"][: len(x)]
    past = np.tril(np.ones((len(x), len(x)), bool))
    for i in range(CONFIG.quantize_position):
        layer = plain.under(w, f"layers.{i}")
        h = plain.layer_norm(layer, "self_attn_layer_norm", x)
        q, k, v = (plain.heads(plain.linear(layer, f"self_attn.{n}_proj", h), 2) for n in "qkv")
        y = plain.attend(q @ k.transpose(0, 2, 1) / math.sqrt(16), v, past)
        x = x + plain.linear(layer, "self_attn.out_proj", y)
        h = plain.linear(layer, "fc1", plain.layer_norm(layer, "final_layer_norm", x))
        x = x + plain.linear(layer, "fc2", plain.gelu(h))
    return x


def test_codes_equal_the_contract(tokenizer, pcm):
    mel = whisper_log_mel(pcm[None], 20)
    w = plain.weights_of(tokenizer.encoder)
    frames = frames_by_hand(w, mel[0].double().numpy())
    np.testing.assert_allclose(tokenizer.encoder.frames(mel)[0], frames, atol=2e-5)
    mean = np.stack([frames[i : i + 4].mean(0) for i in range(0, 32, 4)])
    np.testing.assert_allclose(pooled(tokenizer, pcm), mean, atol=2e-5)
    distance = [[np.square(x - e).sum() for e in w["codebook.weight"]] for x in mean]
    assert tokenizer.encode(pcm).tolist() == np.argmin(distance, axis=1).tolist()


def test_code_t_depends_on_samples_up_to_1280t_plus_1159(tokenizer, pcm):
    """By the gradient, which no coincidence can hide (contract D.4)."""
    heard = pcm.clone().requires_grad_()
    codes = pooled(tokenizer, heard)
    for t in (0, 1, 4, 7):
        (gradient,) = torch.autograd.grad(codes[t].square().sum(), heard, retain_graph=True)
        assert gradient.nonzero().max() == 1280 * t + 1159
        assert gradient[:200].any()


def test_frame_i_depends_on_mel_up_to_2i(tokenizer, pcm):
    mel = whisper_log_mel(pcm[None], 20).requires_grad_()
    frames = tokenizer.encoder.frames(mel)
    for i in (0, 3, 31):
        (gradient,) = torch.autograd.grad(frames[0, i].square().sum(), mel, retain_graph=True)
        assert gradient[0].any(0).nonzero().max() == 2 * i


def test_what_follows_changes_no_code_unless_it_is_louder(tokenizer, pcm):
    codes = tokenizer.encode(pcm)
    assert tokenizer.encode(torch.cat((pcm, torch.zeros(5000))))[:8].tolist() == codes.tolist()
    for t in (1, 5):
        assert tokenizer.encode(pcm[: 1280 * t + 1160])[: t + 1].tolist() == codes[: t + 1].tolist()


@pytest.mark.parametrize(
    ("samples", "codes"), [(1280, 1), (1281, 2), (16000, 13), (480_000, 375), (438_880, 343)]
)
def test_number_of_codes(samples, codes):
    assert pad_to_codes(torch.zeros(1, samples)).shape[1] == 1280 * codes
    assert math.ceil(samples / 1280) == codes


def test_segments_are_independent(tokenizer):
    """Positions, attention and the log-mel maximum restart; here where the positions end."""
    assert CONFIG.segment_samples == 30 * 16000
    kept = tokenizer
    tokenizer = SpeechTokenizer(replace(CONFIG, max_source_positions=11)).requires_grad_(False)
    weights = kept.state_dict()
    name = "encoder.embed_positions.weight"
    tokenizer.load_state_dict(weights | {name: weights[name][:11]})
    generator = torch.Generator().manual_seed(11)
    pcm = torch.randn(6000, generator=generator) * torch.linspace(1e-4, 1, 6000)
    pieces = [tokenizer.encode(pcm[start : start + 2560]) for start in (0, 2560, 5120)]
    assert [len(piece) for piece in pieces] == [2, 2, 1]
    assert tokenizer.encode(pcm).tolist() == torch.cat(pieces).tolist()


def test_nearest_row_of_many(tokenizer):
    points = 3 * torch.randn(500, 32, generator=torch.Generator().manual_seed(19))
    distance = torch.cdist(points.double(), tokenizer.encoder.codebook.weight.double())
    assert torch.equal(tokenizer.encoder.quantize(points[None])[0], distance.argmin(1))


def test_the_lowest_index_wins_a_tie(tokenizer):
    encoder = SpeechTokenizer(CONFIG).encoder.requires_grad_(False)
    encoder.codebook.weight[:] = tokenizer.encoder.codebook.weight
    encoder.codebook.weight[40] = encoder.codebook.weight[7]
    exact = encoder.codebook.weight[[40, 7, 3]]
    assert encoder.quantize(exact[None])[0].tolist() == [7, 7, 3]
    assert encoder.quantize(exact[None].double())[0].tolist() == [7, 7, 3]
