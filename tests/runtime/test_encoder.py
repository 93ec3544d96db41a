"""The encoder equals the reference tokenizer, streams in any chunks, and can go back."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.export.encoder_graph import build_encoder
from antiphon.export.reference.config import TokenizerConfig
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer
from antiphon.quant.schemes import FP32
from antiphon.runtime.backend import Engine
from antiphon.runtime.encoder import SpeechEncoder
from antiphon.runtime.errors import BundleError
from antiphon.runtime.log_mel import log_mel
from antiphon.runtime.manifest import EncoderSizes

CONFIG = TokenizerConfig(
    d_model=64,
    encoder_attention_heads=1,
    encoder_ffn_dim=64,
    quantize_position=1,
    quantize_vocab_size=64,
    num_mel_bins=80,
)
SECOND = 16_000
SIZES = EncoderSizes(mel_bins=80, code_count=CONFIG.quantize_vocab_size)
SEGMENT_SAMPLES = 480_000


def speech(samples: int, seed: int = 1) -> np.ndarray:
    """Noise whose level and colour change every 80 ms: codes differ from one to the next."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(samples + 8).astype(np.float32)
    dull = noise.cumsum()[8:] - noise.cumsum()[:-8]
    slow = rng.random((2, samples // 1280 + 1)).repeat(1280, axis=1)[:, :samples]
    return (0.3 * slow[0] * (slow[1] * noise[8:] + (1 - slow[1]) * dull)).astype(np.float32)


@pytest.fixture(scope="module")
def reference():
    torch.set_num_threads(1)
    torch.manual_seed(8)
    model = SpeechTokenizer(CONFIG).eval().requires_grad_(False)
    model.encoder.embed_positions.weight.mul_(0.01)  # or every code would only tell the time
    heard = model.encoder(torch.tensor(log_mel(speech(64 * 1280), 80))[None])[0]
    model.encoder.codebook.weight.copy_(heard)  # rows where the pooled frames really are
    return model


@pytest.fixture(scope="module")
def bundle(reference, tmp_path_factory):
    weights = {name: value.numpy() for name, value in reference.state_dict().items()}
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    build_encoder(CONFIG, weights.__getitem__, FP32, path)
    engine = Engine.load(path, exact=True)
    manifest = SimpleNamespace(log_mel_max=1.0, encoder=SIZES)
    return SimpleNamespace(engine=lambda name, **_: {"encoder": engine}[name], manifest=manifest)


@pytest.fixture(scope="module")
def encoder(bundle):
    return SpeechEncoder(bundle)


def encode(encoder, pieces):
    return np.concatenate([*map(encoder.push, pieces), encoder.finish()])


def offline(reference, pcm, assumed_max):
    """The reference encoder over whole segments, under the given log-mel rule."""
    codes = []
    for start in range(0, len(pcm), SEGMENT_SAMPLES):
        mel = log_mel(pcm[start : start + SEGMENT_SAMPLES], 80, assumed_max)
        codes.append(reference.encoder.quantize(reference.encoder(torch.tensor(mel)[None]))[0])
    return torch.cat(codes).numpy()


@settings(max_examples=12)
@given(samples=st.integers(1, 2 * SECOND), cuts=st.lists(st.integers(0, 2 * SECOND), max_size=8))
def test_streaming_equals_offline(reference, encoder, samples, cuts):
    pcm = speech(samples)
    pieces = np.split(pcm, sorted(c % (samples + 1) for c in cuts))
    codes = encode(encoder, pieces)
    assert codes.dtype == np.int64
    np.testing.assert_array_equal(codes, offline(reference, pcm, 1.0))


def test_the_codes_say_something(encoder):
    codes = encode(encoder, [speech(2 * SECOND)])
    assert len(np.unique(codes)) > 8


def test_segments_restart_after_30_seconds(reference, encoder):
    pcm = speech(SEGMENT_SAMPLES + 3000)
    codes = encode(encoder, np.split(pcm, [100, SEGMENT_SAMPLES - 7, SEGMENT_SAMPLES + 1]))
    assert len(codes) == 375 + 3
    np.testing.assert_array_equal(codes, offline(reference, pcm, 1.0))
    exact = encode(encoder, [pcm[:SEGMENT_SAMPLES]])
    np.testing.assert_array_equal(exact, codes[:375])


def test_segments_restart_where_the_positions_end(reference, bundle):
    sizes = replace(SIZES, segment_samples=3 * 1280)
    manifest = SimpleNamespace(log_mel_max=1.0, encoder=sizes)
    short = SpeechEncoder(SimpleNamespace(engine=bundle.engine, manifest=manifest))
    pcm = speech(10_000)
    pieces = [offline(reference, piece, 1.0) for piece in np.split(pcm, [3840, 7680])]
    assert [len(piece) for piece in pieces] == [3, 3, 2]
    np.testing.assert_array_equal(encode(short, [pcm]), np.concatenate(pieces))


def test_equals_the_official_rule_where_the_maximum_is_as_assumed(reference, bundle):
    pcm = np.concatenate([np.zeros(4000, np.float32), speech(2 * SECOND)])
    peak = 4 * float(log_mel(pcm, 80).max()) - 4  # undo (v + 4) / 4
    manifest = SimpleNamespace(log_mel_max=peak, encoder=SIZES)
    codes = encode(SpeechEncoder(SimpleNamespace(engine=bundle.engine, manifest=manifest)), [pcm])
    np.testing.assert_array_equal(codes, reference.encode(torch.tensor(pcm)).numpy())


def test_when_codes_come(encoder):
    encoder.reset()
    pcm = speech(SECOND)
    assert len(encoder.push(pcm[:1319])) == 0
    assert len(encoder.push(pcm[1319:1320])) == 1
    assert len(encoder.push(pcm[1320:])) == 11  # 12 x 1280 + 40 <= 16 000
    assert len(encoder.finish()) == 1
    assert len(encoder.finish()) == 0


def test_no_audio_gives_no_codes_and_one_sample_gives_one(encoder):
    assert len(encode(encoder, [])) == 0
    assert len(encode(encoder, [np.zeros(1, np.float32)])) == 1


@settings(max_examples=12)
@given(at=st.integers(0, 2 * SECOND), extra=st.integers(0, SECOND), finished=st.booleans())
def test_restore_undoes_what_came_after_the_mark(encoder, at, extra, finished):
    encoder.reset()
    pcm = speech(2 * SECOND)
    expected = encode(encoder, [pcm])
    before = encoder.push(pcm[:at])
    mark = encoder.mark()
    encoder.push(speech(extra, seed=9))
    if finished:
        encoder.finish()
    encoder.restore(mark)
    np.testing.assert_array_equal(
        np.concatenate([before, encoder.push(pcm[at:]), encoder.finish()]), expected
    )


def test_codes_outside_the_codebook_are_refused(bundle):
    small = SimpleNamespace(log_mel_max=1.0, encoder=replace(SIZES, code_count=2))
    encoder = SpeechEncoder(SimpleNamespace(engine=bundle.engine, manifest=small))
    with pytest.raises(BundleError, match=r"made codes \d+ … \d+, expected 0 … 1"):
        encoder.push(speech(20 * 1280))
