"""`antiphon voice`: list the voices of a bundle, add, remove them, choose the default one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antiphon.runtime import enrol, voice_files
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.enrol import Recording
from antiphon.runtime.manifest import Manifest

from . import audio_file
from .exchange import note


def run(args: argparse.Namespace) -> int:
    """One of the actions. Raises AntiphonError, and then has changed nothing."""
    return {"list": _list, "add": _add, "remove": _remove, "default": _default}[args.action](args)


def recordings(paths: Mapping[str, Path]) -> dict[str, Recording]:
    """Sound files by voice name -> what `export(voices=…)` takes. Raises AudioError."""
    return {name: _recording(path) for name, path in paths.items()}


def _recording(path: Path) -> Recording:
    """The first channel of a sound file; one of a hopeless length is refused unread."""
    facts = audio_file.inspect(path)
    enrol.check_length(str(path), facts.duration_s)
    if facts.channels > 1:
        note(f"{path} has {facts.channels} channels; only the first is heard")
    return Recording(str(path), audio_file.read(facts, facts.rate_hz), facts.rate_hz)


def _list(args: argparse.Namespace) -> int:
    bundle = Bundle.open(args.bundle, verify=False)
    voices = [_describe(bundle, name) for name in bundle.voices]
    if args.json:
        print(json.dumps({"bundle": str(bundle.path), "voices": voices}, ensure_ascii=False))
        return 0
    width = max(len(name) for name in bundle.voices)
    for voice in voices:
        prompt = f"prompt {voice['prompt_s']:.1f} s, {voice['prompt_codes']} codes"
        default = ", the default" if voice["default"] else ""
        print(f"{voice['name']:<{width}}  {prompt}{default}")
    return 0


def _describe(bundle: Bundle, name: str) -> dict[str, Any]:
    """A voice, in plain values."""
    encoder, codes = bundle.manifest.encoder, len(bundle.voice(name).prompt_codes)
    return {
        "name": name,
        "default": name == bundle.voices[0],
        "prompt_codes": codes,
        "prompt_s": codes * encoder.samples_per_code / encoder.sample_rate_hz,
        "file": bundle.manifest.voices[name].file,
    }


def _add(args: argparse.Namespace) -> int:
    """What costs nothing is refused first: the name, a model that cannot, the recording."""
    bundle = Bundle.open(args.bundle)
    voice_files.check_free(args.name, bundle.voices)
    enrol.check_speaker(bundle)
    speech = enrol.find_speech(_recording(args.recording))
    for text in speech.notes:
        note(text)
    enrol.check_room(speech, bundle.manifest.flow, bundle.noise.shape[1])
    voice = enrol.enrol(bundle, speech, threads=args.threads)
    manifest = voice_files.add_voice(bundle.path, args.name, voice, default=args.default)
    added = _describe(Bundle(bundle.path, manifest), args.name)
    print(
        f"{args.name}: prompt {added['prompt_s']:.1f} s, {added['prompt_codes']} codes; "
        f"{_summary(bundle.path, manifest)}"
    )
    return 0


def _remove(args: argparse.Namespace) -> int:
    manifest = voice_files.remove_voice(args.bundle, args.name)
    print(f"{args.name}: removed; {_summary(args.bundle, manifest)}")
    return 0


def _default(args: argparse.Namespace) -> int:
    manifest = voice_files.set_default_voice(args.bundle, args.name)
    print(_summary(args.bundle, manifest))
    return 0


def _summary(folder: Path, manifest: Manifest) -> str:
    first, *others = manifest.voices
    return f"{folder} speaks as {first}" + (f", or as {', '.join(others)}" if others else "")
