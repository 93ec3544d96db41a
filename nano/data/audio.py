"""Trimming, levelling and writing one utterance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Pcm = NDArray[np.float32]  # [S], full scale is 1

LEAD_MS = 40
TAIL_MS = 80
FRAME_MS = 5
SPEECH_DB = -42.0  # a frame this far below the loudest one is silence
PEAK = 0.95


class SilentAudioError(ValueError):
    """The engine produced no sound at all."""


def trim(pcm: Pcm, rate_hz: int) -> Pcm:
    """Cut pcm [S] to 40 ms before and 80 ms after the speech, zero-padded where it is shorter."""
    frame = rate_hz * FRAME_MS // 1000
    whole = pcm[: len(pcm) // frame * frame].reshape(-1, frame)
    level = np.sqrt(np.mean(np.square(whole), axis=1)) if len(whole) else np.zeros(1)
    if level.max() < 1e-4:
        raise SilentAudioError(f"{len(pcm)} samples without any speech")
    speech = np.flatnonzero(level > level.max() * 10 ** (SPEECH_DB / 20))
    lead, tail = rate_hz * LEAD_MS // 1000, rate_hz * TAIL_MS // 1000
    start, end = int(speech[0]) * frame, (int(speech[-1]) + 1) * frame
    padded = np.pad(pcm, (lead, tail))  # so that both margins exist
    return padded[start : end + lead + tail].astype(np.float32)


def limit(pcm: Pcm) -> Pcm:
    """Scale pcm [S] down to a peak of 0.95; quieter audio stays as it is."""
    peak = float(np.max(np.abs(pcm)))
    return (pcm * (PEAK / peak)).astype(np.float32) if peak > PEAK else pcm


def write_flac(path: Path, pcm: Pcm, rate_hz: int) -> None:
    """Write pcm [S] as 16-bit FLAC; the file appears under its name only when it is whole."""
    partial = path.with_suffix(".part")
    soundfile.write(partial, pcm, rate_hz, format="FLAC", subtype="PCM_16")
    partial.replace(path)
