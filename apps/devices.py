"""Microphone and loudspeaker: what there is, and streams whose callbacks only copy samples.

`antiphon devices` needs nothing but PortAudio. A stream runs at the rate of the model if the
device can, else at the device's own rate, and the samples are converted outside the callback.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.errors import AudioDeviceError
from antiphon.runtime.resample import Resampler

Pcm = NDArray[np.float32]
Kind = Literal["input", "output"]

BLOCK_MS = 10  # left to itself, PortAudio asks for a few samples at a time
CAPTURE_S = 10  # of microphone sound that may wait while an engine is busy
AHEAD_MS = 200  # of converted sound that waits for the loudspeaker
WAY_OUT = "`antiphon devices` lists what there is"


def run(args: argparse.Namespace) -> int:
    """Print all devices; the defaults are marked."""
    with _quiet():
        sd = load_sounddevice()
        found, defaults = list(sd.query_devices()), list(sd.default.device)
    rows = [
        {
            "number": number,
            "name": device["name"],
            "inputs": device["max_input_channels"],
            "outputs": device["max_output_channels"],
            "rate_hz": int(device["default_samplerate"]),
            "default": [
                k for k, d in zip(("input", "output"), defaults, strict=True) if d == number
            ],
        }
        for number, device in enumerate(found)
    ]
    if args.json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    for row in rows:
        default = f"  default {' and '.join(row['default'])}" if row["default"] else ""
        print(
            f"{row['number']:>3}  {row['name']}  ({row['inputs']} in, {row['outputs']} out, "
            f"{row['rate_hz']} Hz){default}"
        )
    if not rows:
        raise AudioDeviceError(
            "no sound device on this machine; plug one in, or use antiphon reply"
        )
    return 0


def load_sounddevice() -> Any:
    """The sounddevice module. Raises AudioDeviceError saying what to install."""
    try:
        import sounddevice
    except ImportError as error:
        raise AudioDeviceError(
            "sounddevice is not installed; install the extra: pip install 'antiphon[audio]'"
        ) from error
    except OSError as error:
        raise AudioDeviceError(
            "the PortAudio library was not found; install it, on Debian and Ubuntu: "
            "apt install libportaudio2"
        ) from error
    return sounddevice


@dataclass(frozen=True, slots=True)
class Port:
    """A device chosen for one direction, and the rate it will run at."""

    kind: Kind
    number: int
    name: str
    rate_hz: int

    @property
    def block(self) -> int:
        """Samples of one callback."""
        return self.rate_hz * BLOCK_MS // 1000


def choose(sd: Any, kind: Kind, device: str | None, rate_hz: int) -> Port:
    """Find a device by number or part of its name, the default unless named.

    Raises AudioDeviceError when there is none, or when it offers neither `rate_hz` nor its own
    default rate.
    """
    wanted = int(device) if device is not None and device.isdecimal() else device
    check = sd.check_input_settings if kind == "input" else sd.check_output_settings
    reason: Exception | None = None
    with _quiet():
        try:
            info = sd.query_devices(wanted, kind)
        except (ValueError, sd.PortAudioError) as error:
            which = f"{kind} {device!r}" if device is not None else f"default {kind}"
            raise AudioDeviceError(f"no {which}: {_reason(error)}; {WAY_OUT}") from error
        for rate in (rate_hz, int(info["default_samplerate"])):
            try:
                check(device=info["index"], channels=1, dtype="float32", samplerate=rate)
                return Port(kind, info["index"], info["name"], rate)
            except sd.PortAudioError as error:
                reason = error
    raise _unusable(info["name"], kind, reason)


class Microphone:
    """Samples of the microphone at `rate_hz`, gathered by a callback."""

    def __init__(self, sd: Any, port: Port, rate_hz: int) -> None:
        self.port = port
        self.overruns = 0  # times that samples were lost
        self._ring = AudioRing(port.rate_hz * CAPTURE_S)
        self._resampler = Resampler(port.rate_hz, rate_hz)
        self._stream = _open(sd, sd.InputStream, port, self._on_input)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _on_input(self, block: Pcm, samples: int, _time: Any, status: Any) -> None:
        stored = self._ring.write(block[:, 0])
        if status.input_overflow or stored < samples:
            self.overruns += 1

    def read(self) -> Pcm:
        """Everything heard since the last call. Raises AudioDeviceError once the device is gone."""
        _check_alive(self._stream, self.port)
        block = np.empty(len(self._ring), np.float32)
        self._ring.read(block)
        return self._resampler.push(block)


class Loudspeaker:
    """Plays what is in `source`, at `rate_hz`; silence when there is nothing."""

    def __init__(self, sd: Any, port: Port, source: AudioRing, rate_hz: int) -> None:
        self.port = port
        self.expecting = False  # whether missing samples would be heard as a gap
        self.underruns = 0  # times that samples were missing
        self._source, self._rate_hz = source, rate_hz
        self._resampler = None if port.rate_hz == rate_hz else Resampler(rate_hz, port.rate_hz)
        self._ring = AudioRing(port.rate_hz) if self._resampler else source
        self._stream = _open(sd, sd.OutputStream, port, self._on_output)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def _on_output(self, block: Pcm, samples: int, _time: Any, status: Any) -> None:
        played = self._ring.read(block[:, 0])
        if self.expecting and (status.output_underflow or played < samples):
            self.underruns += 1

    @property
    def played(self) -> int:
        """Index of the sample of the source that is played next; those only converted wait."""
        ahead = 0 if self._resampler is None else len(self._ring) * self._rate_hz
        return self._source.position - ahead // self.port.rate_hz

    @property
    def written(self) -> int:
        """Index of the next sample that the source will be given."""
        return self._source.written

    @property
    def playing(self) -> bool:
        """Whether samples wait to be played."""
        return len(self._source) + len(self._ring) > 0

    def pump(self) -> None:
        """Convert a little of the source. Raises AudioDeviceError once the device is gone."""
        _check_alive(self._stream, self.port)
        if self._resampler is None or 1000 * len(self._ring) >= AHEAD_MS * self.port.rate_hz:
            return
        block = np.empty(min(len(self._source), self._rate_hz * AHEAD_MS // 1000), np.float32)
        self._source.read(block)
        self._ring.write(self._resampler.push(block))

    def stop(self) -> None:
        """Forget what has been converted but not played; the owner flushes the source."""
        if self._resampler is not None:
            self._ring.flush()
            self._resampler.reset()


def _open(sd: Any, stream_type: Any, port: Port, callback: Any) -> Any:
    """A running stream."""
    try:
        with _quiet(), ExitStack() as stack:
            stream = stream_type(
                device=port.number,
                channels=1,
                dtype="float32",
                samplerate=port.rate_hz,
                blocksize=port.block,
                callback=callback,
            )
            stack.callback(stream.close)
            stream.start()
            stack.pop_all()
    except sd.PortAudioError as error:
        raise _unusable(port.name, port.kind, error) from error
    return stream


def _check_alive(stream: Any, port: Port) -> None:
    if not stream.active:
        raise AudioDeviceError(f"{port.name}: the {port.kind} is gone; plug it in and start again")


def _unusable(name: str, kind: Kind, error: Exception | None) -> AudioDeviceError:
    return AudioDeviceError(
        f"{name}: cannot be opened: {_reason(error)}; close what else uses it, or choose another "
        f"with --{kind}; {WAY_OUT}"
    )


def _reason(error: Exception | None) -> str:
    """PortAudio's words; its errors are tuples that begin with them."""
    return str(error.args[0] if error and error.args else error).strip()


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the sound libraries print to stderr while they look for devices."""
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
