"""A recording becomes the voice that the published pipeline would make of it."""

from __future__ import annotations

from dataclasses import replace
from math import ceil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from tiny_speaker import embed, speaker_model, utterance, with_speaker

from antiphon.export.checkpoint import load_reference
from antiphon.export.reference.flow import start_noise
from antiphon.export.reference.mel import flow_mel
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.encoder import SpeechEncoder
from antiphon.runtime.enrol import (
    Recording,
    check_front_end,
    check_room,
    enrol,
    find_speech,
    prompt_codes,
)
from antiphon.runtime.errors import AudioError, BundleError, CapacityError, ConfigError
from antiphon.runtime.fbank import speaker_features
from antiphon.runtime.flow import FlowDecoder
from antiphon.runtime.manifest import FlowSizes
from antiphon.runtime.resample import resample

FLOW = FlowSizes(
    mel_bins=80,
    width=8,
    speaker_dim=192,
    steps=2,
    chunk_tokens=5,
    lookahead_tokens=3,
    mel_per_token=4,
)


@pytest.fixture(scope="module")
def bundle(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("enrol") / "bundle"
    return Bundle.open(with_speaker(random_bundle.path, folder))


@pytest.fixture(scope="module")
def tokenizer(random_bundle: Bundle):
    return load_reference(random_bundle.path.parent / "checkpoint").tokenizer


def recording(pcm: np.ndarray, rate_hz: int = 24_000) -> Recording:
    return Recording("anna.wav", pcm.astype(np.float32), rate_hz)


def refused(pcm: np.ndarray, rate_hz: int = 24_000) -> str:
    with pytest.raises(AudioError) as caught:
        find_speech(recording(pcm, rate_hz))
    assert str(caught.value).startswith("anna.wav: ")
    return str(caught.value)


def notes(pcm: np.ndarray, rate_hz: int = 24_000) -> list[str]:
    return [n.removeprefix("anna.wav: ") for n in find_speech(recording(pcm, rate_hz)).notes]


def test_good_recordings_pass_as_they_are():
    for seconds in (3.1, 9.9):
        pcm = utterance(seconds)
        speech = find_speech(recording(pcm))
        np.testing.assert_array_equal(speech.recording.pcm, pcm)
        assert speech.notes == ()


@pytest.mark.parametrize("seconds", [0.0, 0.01, 0.99, 40.01])
def test_a_recording_of_the_wrong_length_is_refused(seconds):
    assert "expected 1 to 40 s; take 3 to 10 s of one person" in refused(utterance(seconds))


@pytest.mark.parametrize("level", [0.0, 5e-4])
def test_silence_is_refused_even_with_an_offset(level):
    pcm = 0.2 + level * utterance(5)
    assert "silent, expected somebody speaking" in refused(pcm)


def test_a_word_in_long_silence_is_too_short():
    pcm = np.zeros(5 * 24_000)
    pcm[48_000:54_000] = utterance(0.25)
    assert "0.7 s of sound, expected 1 to 40 s" in refused(pcm)  # with 0.2 s on both sides


def test_samples_that_are_no_numbers_are_refused():
    pcm = utterance(4)
    pcm[5000] = np.nan
    assert "samples are not finite" in refused(pcm)


def test_an_overdriven_recording_is_refused():
    assert "too loud, " in refused(np.clip(20 * utterance(5), -1, 1))


def test_silence_at_the_ends_is_left_out():
    quiet = 1e-4 * utterance(1, seed=3)
    speech = utterance(4)
    pcm = np.concatenate([quiet, np.zeros(12_000), speech, quiet])
    found = find_speech(recording(pcm))
    lead = len(quiet) + 12_000
    kept = found.recording.pcm
    start = lead - 4800  # 0.2 s, to a frame of 20 ms
    assert abs(len(kept) - (len(speech) + 9600)) <= 2 * 480
    np.testing.assert_array_equal(kept, pcm[start : start + len(kept)].astype(np.float32))
    assert found.notes == ("anna.wav: left out 2.1 s of silence at its ends",)


@pytest.mark.parametrize(
    ("pcm", "rate", "said"),
    [
        (utterance(2), 24_000, "only 2.0 s to learn a voice from; take 3 to 10 s"),
        (utterance(12), 24_000, "12.0 s of prompt cost memory"),
        (0.01 * utterance(4), 24_000, "quiet, -"),
        (utterance(4, 8000), 8000, "nothing above 4000 Hz in it, the model uses up to 8000 Hz"),
        (np.concatenate([utterance(1), np.zeros(96_000), utterance(1)]), 24_000, "67% of it is"),
        (np.where(np.arange(96_000) % 2000 == 9, 1, utterance(4)), 24_000, "0.05% of it is cut"),
    ],
)
def test_what_its_owner_should_know(pcm, rate, said):
    assert [note for note in notes(pcm, rate) if note.startswith(said)], notes(pcm, rate)


def test_the_input_is_not_changed():
    pcm = np.concatenate([np.zeros(24_000), utterance(3)]).astype(np.float32)
    kept = pcm.copy()
    find_speech(recording(pcm))
    np.testing.assert_array_equal(pcm, kept)


@settings(max_examples=60)
@given(
    seconds=st.floats(1, 40), rate=st.sampled_from([8000, 11_025, 16_000, 22_050, 44_100, 48_000])
)
def test_the_prompt_is_whole_chunks_of_what_codes_and_mel_both_have(seconds, rate):
    samples = min(40 * rate, round(seconds * rate))
    speech = replace(
        find_speech(recording(utterance(1))), recording=recording(np.zeros(samples), rate)
    )
    count = prompt_codes(speech, FLOW)
    frames = ceil(samples * 24_000 / rate) // 480
    codes = ceil(ceil(samples * 16_000 / rate) / 1280)
    assert count % 5 == 0
    assert 4 * count <= frames
    assert count <= codes
    assert count + 5 > min(frames // 4, codes)


def halting(seconds: float, rate_hz: int) -> np.ndarray:
    """Digital silence inside: only there the two rules for the log-mel's floor differ."""
    pcm = utterance(seconds, rate_hz)
    pcm[len(pcm) // 4 : len(pcm) // 2] = 0
    return pcm


@pytest.mark.parametrize(("seconds", "rate"), [(1.0, 16_000), (3.3, 44_100), (2.5, 24_000)])
def test_codes_and_mel_are_the_references(tokenizer, bundle, seconds, rate):
    """The codes under the official rule: the loudest bin of the whole recording."""
    pcm = halting(seconds, rate)
    speech = find_speech(recording(pcm, rate))
    heard = speech.recording.pcm
    voice = enrol(bundle, speech)
    with torch.no_grad():
        codes = tokenizer.encode(torch.from_numpy(resample(heard, rate, 16_000))).numpy()
        mel = flow_mel(torch.from_numpy(resample(heard, rate, 24_000))[None])[0].numpy()
    count = min(len(codes), mel.shape[1] // 4) // 5 * 5
    assert len(voice.prompt_codes) == count == prompt_codes(speech, FLOW)
    np.testing.assert_array_equal(voice.prompt_codes, codes[:count])
    np.testing.assert_allclose(voice.prompt_mel, mel[:, : 4 * count], atol=1e-4)


def test_what_the_bundle_assumes_of_a_microphone_changes_nothing(bundle):
    pcm = halting(4, 16_000)
    deaf = Bundle(bundle.path, replace(bundle.manifest, log_mel_max=30.0))
    encoder = SpeechEncoder(deaf, exact=True)
    streamed = np.concatenate([encoder.push(pcm), encoder.finish()])[:50]
    voices = [enrol(b, find_speech(recording(pcm, 16_000))) for b in (bundle, deaf)]
    np.testing.assert_array_equal(voices[0].prompt_codes, voices[1].prompt_codes)
    assert (streamed != voices[0].prompt_codes).any()


def test_the_speaker_vector_is_of_the_whole_recording_at_24_khz_resampled(bundle):
    pcm = utterance(2.3, 48_000)
    voice = enrol(bundle, find_speech(recording(pcm, 48_000)))
    heard = resample(resample(pcm, 48_000, 24_000), 24_000, 16_000)
    np.testing.assert_allclose(voice.embedding, embed(speaker_features(heard)), rtol=1e-4)


@pytest.mark.parametrize(("seconds", "rate"), [(30.0, 16_000), (30.01, 44_100), (36.2, 48_000)])
def test_the_second_segment_is_encoded_by_itself(tokenizer, bundle, seconds, rate):
    """Its own loudest bin, its own positions; the official prompts have up to 36 s."""
    pcm = halting(seconds, rate)
    pcm[30 * rate :] *= 1e-3  # the floor under the first segment would drown it
    heard = replace(find_speech(recording(utterance(1))), recording=recording(pcm, rate))
    voice = enrol(bundle, heard)
    with torch.no_grad():
        codes = tokenizer.encode(torch.from_numpy(resample(pcm, rate, 16_000))).numpy()
    count = prompt_codes(heard, FLOW)
    assert count + 5 > len(codes) - 1
    assert len(voice.prompt_codes) == count
    np.testing.assert_array_equal(voice.prompt_codes, codes[:count])


def test_a_long_prompt_speaks_as_the_reference_does(random_bundle, bundle, monkeypatch):
    """Beyond one segment of the encoder and 1500 frames of the flow."""
    voice = enrol(bundle, find_speech(recording(utterance(31))))
    assert voice.prompt_mel.shape == (80, 4 * len(voice.prompt_codes)) == (80, 1540)
    noise = start_noise(frames=1700).numpy()
    roomy = Bundle(bundle.path, bundle.manifest)
    monkeypatch.setitem(vars(roomy), "noise", noise)
    monkeypatch.setattr(roomy, "voice", lambda name: voice)
    decoder, codes = FlowDecoder(roomy, exact=True), np.arange(23)
    flow = load_reference(random_bundle.path.parent / "checkpoint").flow
    prompt = (voice.prompt_codes, voice.prompt_mel, voice.embedding)
    whole = flow.generate(torch.from_numpy(codes), tuple(map(torch.from_numpy, prompt)), chunk=5)
    for _ in range(2):  # the second reply starts from the prompt's state again
        mel = np.concatenate([decoder.push(codes), decoder.finish()], axis=1)
        np.testing.assert_allclose(mel, whole.numpy(), atol=1e-4)


def test_the_voice_can_speak_at_once_on_a_chunk_border(bundle, monkeypatch):
    voice = enrol(bundle, find_speech(recording(utterance(3))))
    monkeypatch.setattr(bundle, "voice", lambda name: voice)
    decoder = FlowDecoder(bundle)
    codes = np.arange(8)
    assert decoder.push(codes).shape[1] == 20  # the first chunk needs five codes and three ahead


def test_a_model_without_a_speaker_encoder_is_refused(random_bundle):
    with pytest.raises(ConfigError, match=r"no speaker engine, so this model has only .*\(anna\)"):
        enrol(random_bundle, find_speech(recording(utterance(3))))


def test_another_front_end_is_refused(bundle):
    odd = replace(bundle.manifest.vocoder, sample_rate_hz=48_000, samples_per_frame=960)
    with pytest.raises(ConfigError, match="960 samples per frame at 48000 Hz, expected 480 at"):
        check_front_end(bundle.manifest.flow, odd)


def test_a_prompt_leaves_room_for_a_reply():
    speech = find_speech(recording(utterance(12)))
    check_room(speech, FLOW, 1200)
    with pytest.raises(CapacityError, match=r"12\.0 s of prompt, but prompt and reply share 23"):
        check_room(speech, FLOW, 1150)
    with pytest.raises(AudioError, match=r"1\.5 s, shorter than one chunk of this model, 25 codes"):
        check_room(find_speech(recording(utterance(1.5))), replace(FLOW, chunk_tokens=25), 1200)


def test_the_size_of_what_the_speaker_engine_makes_is_checked(random_bundle, tmp_path: Path):
    short = speaker_model(dim=100, output_shape=("batch", "n"))
    bundle = Bundle.open(with_speaker(random_bundle.path, tmp_path / "b", short))
    with pytest.raises(BundleError, match=r"float32\[1, 100\] of \[1, 298, 80\], expected 192"):
        enrol(bundle, find_speech(recording(utterance(3))))


def test_a_vector_that_is_not_finite_is_refused(random_bundle, tmp_path: Path):
    model = speaker_model()
    model.graph.initializer[0].raw_data = np.full((80, 192), np.inf, "f4").tobytes()
    assert model.graph.initializer[0].data_type == TensorProto.FLOAT
    bundle = Bundle.open(with_speaker(random_bundle.path, tmp_path / "b", model))
    with pytest.raises(BundleError, match="expected 192 finite numbers"):
        enrol(bundle, find_speech(recording(utterance(3))))
