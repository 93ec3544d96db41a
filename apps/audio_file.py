"""Sound files: questions in (wav, flac), replies out (24 kHz mono 16-bit wav, whole or absent).

Only channel 0 is used, never a mean (contract D.3 step 1). A file is looked at twice: `inspect`
reads its header, so that a hopeless one is refused before any work, `read` its samples.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from antiphon.runtime.errors import AudioError
from antiphon.runtime.resample import Resampler

Pcm = NDArray[np.float32]

FORMATS = {"WAV", "WAVEX", "RF64", "FLAC"}
RATES_HZ = range(8_000, 192_001)
_NO_LENGTH = 1 << 40  # samples; libsndfile says 2**63 - 1 of a flac stream that states no length
_BLOCK_S = 1
_STREAMED = 0x7FFF_F000  # programs that write into a pipe state this or more as the length of a wav


@dataclass(frozen=True, slots=True)
class SoundFacts:
    """What the header of a sound file says."""

    path: Path
    rate_hz: int
    channels: int
    samples: int  # of each channel

    @property
    def duration_s(self) -> float:
        """Length of the recording."""
        return self.samples / self.rate_hz


def inspect(path: Path) -> SoundFacts:
    """Read the header of a wav or flac file. Raises AudioError unless `read` can use it."""
    try:
        if not path.is_file():
            path.stat()  # a missing file explains itself
            raise AudioError(f"{path}: not a file; name a wav or flac recording")
        with soundfile.SoundFile(path) as file:
            kind, samples = str(file.format), int(file.frames)
            facts = SoundFacts(path, int(file.samplerate), int(file.channels), samples)
        missing = _missing_bytes(path)
    except (OSError, ValueError) as error:
        raise AudioError(f"{path}: cannot be read: {_reason(error)}") from error
    except soundfile.SoundFileError as error:
        raise AudioError(
            f"{path}: not a readable sound file ({_reason(error)}); expected wav or flac"
        ) from error
    if kind not in FORMATS:
        raise AudioError(f"{path}: {kind} audio, expected wav or flac; convert it first")
    if missing > 1:  # one byte may be the padding of an odd length
        raise AudioError(
            f"{path}: ends {missing} bytes before its header says; record or copy it again"
        )
    if samples >= _NO_LENGTH:
        raise AudioError(f"{path}: states no length; write it to a file again, not to a pipe")
    if samples == 0:
        raise AudioError(f"{path}: holds no samples; record it again")
    if facts.rate_hz not in RATES_HZ:
        raise AudioError(
            f"{path}: {facts.rate_hz} Hz, expected {RATES_HZ[0]} to {RATES_HZ[-1]} Hz; resample it"
        )
    return facts


def read(facts: SoundFacts, rate_hz: int) -> Pcm:
    """The first channel at `rate_hz`, float32 in ±1 [S].

    Raises AudioError when the samples are damaged, fewer than the header says, or not finite.
    """
    resampler = Resampler(facts.rate_hz, rate_hz)
    pieces, heard = [], 0
    try:
        for block in _first_channel(facts):
            if not np.isfinite(block).all():
                raise AudioError(
                    f"{facts.path}: samples near {heard / facts.rate_hz:.2f} s are not finite; "
                    "record or convert it again"
                )
            heard += len(block)
            pieces.append(resampler.push(np.clip(block, -1, 1)))
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(
            f"{facts.path}: damaged after {heard / facts.rate_hz:.2f} s ({_reason(error)}); "
            "record or copy it again"
        ) from error
    if heard < facts.samples:
        raise AudioError(
            f"{facts.path}: ends after {heard} of {facts.samples} samples; record or copy it again"
        )
    return np.concatenate([*pieces, resampler.finish()])


def _first_channel(facts: SoundFacts) -> Iterator[Pcm]:
    """Blocks of at most one second; other channels are dropped at once."""
    with soundfile.SoundFile(facts.path) as file:
        while len(block := file.read(_BLOCK_S * facts.rate_hz, dtype="float32", always_2d=True)):
            yield np.ascontiguousarray(block[:, 0])


def _missing_bytes(path: Path) -> int:
    """How much shorter a wav file is than its own header promises; libsndfile does not say."""
    with path.open("rb") as file:
        length = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return 0
        data_bytes = _data_bytes(file)
        promised = file.tell() + data_bytes if data_bytes < _STREAMED else 0
    return max(0, promised - length)


def _data_bytes(file: BinaryIO) -> int:
    """Walk to the samples of a wav file; returns how many bytes of them its header states."""
    while len(chunk := file.read(8)) == 8:
        name, size = struct.unpack("<4sI", chunk)
        if name == b"data":
            return int(size)
        file.seek(size + size % 2, os.SEEK_CUR)
    return 0


def check_output(path: Path, question: Path | None = None) -> None:
    """Raise AudioError unless `write` can put a wav file at `path`. Leaves nothing behind.

    question  a file that must not be overwritten
    """
    if path.suffix.lower() not in ("", ".wav", ".wave"):
        raise AudioError(f"{path}: replies are wav files; end the name in .wav")
    try:
        target = path.resolve()
        if question is not None and target == question.resolve():
            raise AudioError(f"{path}: is the question; choose another name for the reply")
        if target.exists() and not target.is_file():
            raise AudioError(f"{path}: exists and is not a file; choose another name")
        with tempfile.NamedTemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise AudioError(f"{path}: cannot be written: {_reason(error)}") from error


def write(path: Path, pcm: Pcm, rate_hz: int) -> None:
    """Write pcm [S] as 16-bit mono wav: to a hidden file beside it first, then renamed.

    Samples beyond ±1 are clipped. Raises AudioError; `path` then is what it was before.
    """
    if not np.isfinite(pcm).all():
        raise AudioError(f"{path}: not written, samples are not finite; export the bundle again")
    target = path.resolve()
    part = target.with_name(f".{os.getpid()}-{target.name[-100:]}.part")
    codes = np.round(np.clip(pcm, -1, 1) * 32767).astype(np.int16)
    try:
        soundfile.write(part, codes, rate_hz, format="WAV", subtype="PCM_16")
        part.replace(target)
    except (soundfile.SoundFileError, OSError) as error:
        raise AudioError(f"{path}: cannot be written: {_reason(error)}") from error
    finally:
        part.unlink(missing_ok=True)


def _reason(error: Exception) -> str:
    """The library's words, without the file name that the message already has."""
    text = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return str(text).strip().rstrip(".")
