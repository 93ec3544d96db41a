"""Voices made at export: refused early, made by the engines of the bundle being written."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from onnx import save
from tiny_speaker import speaker_model, utterance, with_speaker

from antiphon.export.checkpoint import Checkpoint
from antiphon.export.voices import check, enrol
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.enrol import Recording, find_speech
from antiphon.runtime.enrol import enrol as enrol_speech
from antiphon.runtime.errors import AudioError, CapacityError, ConfigError


@pytest.fixture(scope="module")
def source(random_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    folder = tmp_path_factory.mktemp("voices") / "checkpoint"
    shutil.copytree(random_bundle.path.parent / "checkpoint", folder)
    save(speaker_model(), folder / "MOSS-Speech-Codec" / "flow" / "campplus.onnx")
    return Checkpoint.open(folder)


def recording(seconds: float = 3.5, seed: int = 1) -> Recording:
    return Recording("eve.wav", utterance(seconds, 24_000, seed), 24_000)


def test_good_recordings_are_let_through_with_notes(source: Checkpoint) -> None:
    assert check(source, {}) == []
    assert check(source, {"eve": recording(), "zoe": recording(4)}) == []
    notes = check(source, {"eve": recording(2)})
    assert len(notes) == 1
    assert notes[0].startswith("eve.wav: only 2.0 s to learn")


@pytest.mark.parametrize("name", ["", "../eve", "e v e"])
def test_bad_names_are_refused(source: Checkpoint, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a voice"):
        check(source, {name: recording()})


def test_names_of_the_checkpoint_and_twins_are_taken(source: Checkpoint) -> None:
    with pytest.raises(ConfigError, match="there is a voice 'anna' already"):
        check(source, {"Anna": recording()})
    with pytest.raises(ConfigError, match="there is a voice 'eve' already"):
        check(source, {"eve": recording(), "EVE": recording(4)})


def test_unusable_recordings_are_refused(source: Checkpoint) -> None:
    with pytest.raises(AudioError, match=r"eve\.wav: 0\.5 s of sound"):
        check(source, {"eve": recording(0.5)})
    with pytest.raises(CapacityError, match="export with more --noise-frames"):
        check(source, {"eve": recording(12)}, noise_frames=1000)


def test_a_checkpoint_without_a_speaker_encoder(random_bundle: Bundle) -> None:
    source = Checkpoint.open(random_bundle.path.parent / "checkpoint")
    assert check(source, {}) == []
    with pytest.raises(ConfigError, match=r"no MOSS-Speech-Codec/flow/campplus\.onnx"):
        check(source, {"eve": recording()})


def test_the_half_written_bundle_makes_the_same_voices(
    source: Checkpoint, random_bundle: Bundle, tmp_path: Path
) -> None:
    whole = Bundle.open(with_speaker(random_bundle.path, tmp_path / "whole"))
    half = tmp_path / "half"
    half.mkdir()
    for path in whole.path.iterdir():
        if path.stem in ("encoder", "speaker"):
            shutil.copy(path, half)
    before = sorted(half.iterdir())
    recordings = {"zoe": recording(3), "eve": recording(4, seed=2)}
    voices = enrol(source, half, recordings)
    assert list(voices) == ["zoe", "eve"]
    assert sorted(half.iterdir()) == before
    for name, voice in voices.items():
        expected = enrol_speech(whole, find_speech(recordings[name]))
        for field in ("prompt_codes", "prompt_mel", "embedding"):
            np.testing.assert_array_equal(getattr(voice, field), getattr(expected, field))
    assert enrol(source, tmp_path / "nowhere", {}) == {}
