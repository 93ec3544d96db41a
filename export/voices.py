"""Voices that an export makes of recordings; the first one becomes the bundle's default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.enrol import (
    SPEAKER,
    Recording,
    check_front_end,
    check_room,
    find_speech,
)
from antiphon.runtime.enrol import enrol as enrol_speech
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import EngineEntry
from antiphon.runtime.voice_files import check_free

from .checkpoint import Checkpoint
from .manifest_facts import absent, draft, model_facts
from .reference.flow import NOISE_FRAMES


def check(
    source: Checkpoint,
    recordings: Mapping[str, Recording],
    *,
    noise_frames: int = NOISE_FRAMES,
) -> list[str]:
    """Refuse before hours of work what `enrol` would refuse after them; loads no engine.

    recordings   by voice name; `antiphon.apps.voice.recordings` reads them from sound files
    returns      what their owner should know of them, a line each
    Raises ConfigError for a name that is taken or cannot be one and for a checkpoint without
    `flow/campplus.onnx`, AudioError for a recording that cannot become a voice, CapacityError for
    one that is too long for `noise_frames`.
    """
    if recordings and source.speaker is None:
        raise ConfigError(
            f"{source.directory}: no MOSS-Speech-Codec/flow/campplus.onnx, so no voice can be made "
            "of a recording; download that file too, or leave out --voice"
        )
    facts, known = model_facts(source), list(source.voices)
    notes: list[str] = []
    for name, recording in recordings.items():
        check_free(name, known)
        check_front_end(facts["flow"], facts["vocoder"])
        speech = find_speech(recording)
        check_room(speech, facts["flow"], noise_frames)
        known.append(name)
        notes += speech.notes
    return notes


def enrol(
    source: Checkpoint, folder: Path, recordings: Mapping[str, Recording]
) -> dict[str, Voice]:
    """Voices by name, in the order given; nothing is written.

    folder   of the bundle being written: `encoder.onnx` and `speaker.onnx` are finished there
    Raises AudioError for a recording that `check` refuses, BundleError when an engine does not do
    what it should, CapacityError when memory is short.
    """
    if not recordings:
        return {}
    bundle = _two_engines(source, folder)
    return {name: enrol_speech(bundle, find_speech(r)) for name, r in recordings.items()}


def _two_engines(source: Checkpoint, folder: Path) -> Bundle:
    """As much of the bundle as enrolment uses: sizes, and the names of two engine files."""
    engines = {
        name: EngineEntry(file=absent(f"{name}.onnx"), inputs=(), outputs=(), scheme="")
        for name in ("encoder", SPEAKER)
    }
    manifest = replace(draft(source, name=folder.name, target="cpu", weights=""), engines=engines)
    return Bundle(folder, manifest)
