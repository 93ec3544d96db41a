"""A conversation kept in a folder, while it is held.

    sound-001.wav       stereo, the model's rate of speech: user left, assistant right
    turns.jsonl         an exchange per line: when it was said, how long it took, what happened
                        (and the device faults and rows of the whole talk up to then)
    conversation.json   what the model remembers; `antiphon talk --resume` goes on from there

A folder that is resumed gets another sound file, and more lines. Times count microphone sound from
the beginning of the sound file that the line names; `started` is the clock of the machine then.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.conversation import Conversation
from antiphon.runtime.duplex_event import Event
from antiphon.runtime.errors import AudioError, ConfigError
from antiphon.runtime.manifest import Manifest
from antiphon.runtime.resample import Resampler

from .stereo_wav import StereoWav

Pcm = NDArray[np.float32]

FORMAT_VERSION = 1
ROWS, TURNS = "conversation.json", "turns.jsonl"
MOST_BYTES = 1 << 24  # of a file of rows


class Recorder:
    """Writes both sides and what happened; a context."""

    def __init__(
        self, folder: Path, manifest: Manifest, clock: Callable[[], float] = time.time
    ) -> None:
        """Raises AudioError when the folder cannot be written."""
        self._folder, self._manifest, self._clock = folder, manifest, clock
        spoken_hz = manifest.vocoder.sample_rate_hz
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AudioError(f"{folder}: cannot be made: {error.strerror}") from error
        self._number = 1
        self._wav, self._started = self._next_file(), clock()
        self._since = 0.0  # what was recorded before this sound file
        self._resampler = Resampler(manifest.encoder.sample_rate_hz, spoken_hz)
        self._near: Pcm = np.zeros(spoken_hz // 100, np.float32)  # so that a whole block is there
        self._events: list[dict[str, Any]] = []  # of the exchange under way

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self._wav.close()

    def hear(self, near: Pcm, far: Pcm) -> None:
        """10 ms of the microphone and of the loudspeaker, each at its own rate."""
        self._near = np.concatenate([self._near, self._resampler.push(near)])
        left, self._near = np.split(self._near, [len(far)])
        self._wav.write(left, far)
        if not self._events:
            self._change_file()

    def tell(self, event: Event) -> None:
        """Something happened; the end of a reply, or of a turn without one, writes the line."""
        self._events.append(
            {
                "kind": event.kind.value,
                "at_s": round(event.at_s - self._since, 3),
                "decided_s": round(event.decided_s - self._since, 3),
                "clock": round(self._clock(), 3),
            }
            | ({"reason": event.reason} if event.reason else {})
        )

    def keep(
        self, event: Event, conversation: Conversation, rows: int, faults: Mapping[str, int]
    ) -> None:
        """An exchange is over: write its line, and the conversation as it is now remembered.

        rows, faults  of the whole talk up to now
        """
        reply = event.reply
        line: dict[str, Any] = {
            "sound": self._wav.path.name,
            "started": round(self._started, 3),
            "events": self._events,
            "rows": rows,
            "faults": dict(faults),
        }
        if reply is not None:
            line |= {
                "spoken": reply.spoken,
                "ending": reply.ending.value if reply.ending else None,
                "text": reply.text,
                "codes": len(reply.codes),
                "heard_codes": reply.heard_codes,
                "metrics": reply.metrics.as_dict(),
            }
        self._events = []
        self._write_line(line)
        write_rows(self._folder / ROWS, self._manifest, conversation)
        self._change_file()

    def _change_file(self) -> None:
        """Go on in another sound file if this one is full."""
        if self._wav.full:
            self._wav.close()
            self._since += self._wav.samples / self._wav.rate_hz
            self._wav = self._next_file()
            self._started = self._clock()

    def _next_file(self) -> StereoWav:
        while (path := self._folder / f"sound-{self._number:03}.wav").exists():
            self._number += 1
        return StereoWav(path, self._manifest.vocoder.sample_rate_hz)

    def _write_line(self, line: dict[str, Any]) -> None:
        try:
            with (self._folder / TURNS).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
        except OSError as error:
            raise AudioError(f"{self._folder}: cannot be written: {error.strerror}") from error


def write_rows(path: Path, manifest: Manifest, conversation: Conversation) -> None:
    """Write the rows. Whole or not at all: beside the file first, then in its place."""
    facts = {
        "format_version": FORMAT_VERSION,
        "bundle": manifest.name,
        "weights": manifest.weights,
        "conversation": conversation.as_dict(),
    }
    part = path.with_name(f".{os.getpid()}-{path.name}.part")
    try:
        part.write_text(json.dumps(facts))
        part.replace(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def check_unused(folder: Path) -> None:
    """Raises ConfigError when a conversation is kept in `folder`: another would replace it."""
    if (folder / ROWS).exists():
        raise ConfigError(
            f"{folder}: a conversation is kept there; go on with it by --resume {folder}, or name "
            "another folder"
        )


def read_rows(folder: Path) -> Conversation:
    """The rows kept in `folder`. Raises ConfigError when there are none, or damaged ones."""
    path = folder / ROWS
    try:
        if path.stat().st_size > MOST_BYTES:
            raise ConfigError(f"{path}: too large for a conversation; name another folder")
        raw = json.loads(path.read_text())
    except OSError as error:
        raise ConfigError(
            f"{path}: {error.strerror}; name a folder that `antiphon talk --save` wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON; begin a new conversation") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise ConfigError(
            f"{path}: format version {version!r}, expected {FORMAT_VERSION}; resume it with the "
            "antiphon that saved it, or begin a new one"
        )
    try:
        return Conversation.from_dict(raw.get("conversation"))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
