"""Microphones and loudspeakers: what there is, and which one at which rate.

`antiphon devices` needs nothing but PortAudio.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from antiphon.runtime.errors import AudioDeviceError

from .device_thread import DeviceThread

Kind = Literal["input", "output"]

BLOCK_MS = 10  # left to itself, PortAudio asks for a few samples at a time
CHANNELS = (1, 2)  # tried in turn: some devices know no mono
WAY_OUT = "`antiphon devices` lists what there is"


def run(args: argparse.Namespace) -> int:
    """The command."""
    return show(as_json=args.json)


def show(*, as_json: bool = False) -> int:
    """Print all devices; the defaults are marked."""
    rows = DeviceThread().call(_list)
    if as_json:
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


def _list() -> list[dict[str, Any]]:
    with quiet():
        sd = load_sounddevice()
        found, defaults = list(sd.query_devices()), list(sd.default.device)
    return [
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
    except Exception as error:  # PortAudioError, of a module that did not load
        raise AudioDeviceError(
            f"PortAudio does not start: {reason(error)}; restart the sound service"
        ) from error
    return sounddevice


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a device; `name` is a number or part of a name, None the default."""

    kind: Kind
    name: str | None
    rate_hz: int  # of the model
    device_rate_hz: int | None = None  # demanded of the device; None: the model's where it can

    @property
    def rates_hz(self) -> tuple[int, ...]:
        """What the device may run at, best first; its own default comes after these."""
        return (self.rate_hz,) if self.device_rate_hz is None else (self.device_rate_hz,)


@dataclass(frozen=True, slots=True)
class Port:
    """A device chosen for one direction, and how it will run."""

    kind: Kind
    number: int
    name: str
    rate_hz: int
    channels: int = 1

    @property
    def block(self) -> int:
        """Samples of one callback."""
        return self.rate_hz * BLOCK_MS // 1000


def choose(sd: Any, wanted: Wanted) -> Port:
    """Find the device and a rate that it offers.

    Raises AudioDeviceError when there is none, or when it offers neither the rate wanted nor,
    unless one was demanded, its own default.
    """
    kind, name = wanted.kind, wanted.name
    with quiet():
        try:
            info = sd.query_devices(_key(sd, name), kind)
        except (ValueError, sd.PortAudioError) as error:
            if name is None:
                raise AudioDeviceError(
                    f"no default {kind}; plug one in, or name one with --{kind}; {WAY_OUT}"
                ) from error
            raise AudioDeviceError(f"no {kind} {name!r}: {reason(error)}; {WAY_OUT}") from error
        return _offered(sd, wanted, info)


def _key(sd: Any, name: str | None) -> str | int | None:
    """A name that is exactly a device's is that device's, whichever others contain it."""
    if name is None or name.isdecimal():
        return None if name is None else int(name)
    same = [number for number, found in enumerate(sd.query_devices()) if found["name"] == name]
    return same[0] if same else name


def _offered(sd: Any, wanted: Wanted, info: Any) -> Port:
    check = sd.check_input_settings if wanted.kind == "input" else sd.check_output_settings
    own = () if wanted.device_rate_hz is not None else (int(info["default_samplerate"]),)
    refused: Exception | None = None
    for rate in (*wanted.rates_hz, *own):
        for channels in CHANNELS:
            try:
                check(device=info["index"], channels=channels, dtype="float32", samplerate=rate)
                return Port(wanted.kind, info["index"], info["name"], rate, channels)
            except sd.PortAudioError as error:
                refused = refused or error
    raise unusable(info["name"], wanted.kind, refused)


def unusable(name: str, kind: Kind, error: Exception | None) -> AudioDeviceError:
    """A device that is there and cannot be opened."""
    return AudioDeviceError(
        f"{name}: cannot be opened: {reason(error)}; close what else uses it, or choose another "
        f"with --{kind}; {WAY_OUT}"
    )


def reason(error: Exception | None) -> str:
    """PortAudio's words, and those of the system below where it has some.

    Its errors are tuples of a text, a code and (API, code, text) of the host.
    """
    words = str(error.args[0] if error and error.args else error).strip()
    host = str(error.args[2][2]).strip() if error and len(error.args) > 2 else ""
    return f"{words} ({host})" if host else words


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what the sound libraries print to stderr while they look for devices."""
    saved, sink = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(sink)
