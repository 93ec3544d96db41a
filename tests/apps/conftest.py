"""One random model for all tests of the commands, and a stand-in for PortAudio."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from antiphon.apps.parser import BUNDLE_VARIABLE


@pytest.fixture(scope="session")
def bundle_folder(random_bundle) -> Path:
    return random_bundle.path


@pytest.fixture
def default_bundle(bundle_folder, monkeypatch) -> Path:
    monkeypatch.setenv(BUNDLE_VARIABLE, str(bundle_folder))
    return bundle_folder


class PortAudioError(Exception):
    pass


class FakeStream:
    """Calls its callback when told to."""

    def __init__(self, **options):
        self.options = options
        self.active = False
        self.closed = False

    def start(self):
        self.active = True

    def close(self):
        self.active, self.closed = False, True

    def deliver(self, samples, **flags):
        """An input block; or an output block, returned."""
        block = np.array(samples, "f4").reshape(-1, 1)
        status = SimpleNamespace(input_overflow=False, output_underflow=False)
        vars(status).update(flags)
        self.options["callback"](block, len(block), None, status)
        return block[:, 0]


class FakeSoundDevice:
    """A microphone at 44.1 kHz only, a loudspeaker at any rate."""

    PortAudioError = PortAudioError
    DEVICES = (
        dict(index=0, name="mic", max_input_channels=2, max_output_channels=0),
        dict(index=1, name="speaker", max_input_channels=0, max_output_channels=2),
    )

    def __init__(self):
        self.default = SimpleNamespace(device=[0, 1])
        self.streams = []
        self.busy = False
        self.rates = {"input": {44100}, "output": {24000, 48000}}

    def query_devices(self, device=None, kind=None):
        found = [dict(d, default_samplerate=44100.0) for d in self.DEVICES]
        if kind is None:
            return found
        if device is None:
            return found[kind == "output"]
        for entry in found:
            if device in (entry["index"], entry["name"]) and entry[f"max_{kind}_channels"]:
                return entry
        raise ValueError(f"No {kind} device matching {device!r}")

    def check_input_settings(self, *, samplerate, **_):
        if samplerate not in self.rates["input"]:
            raise PortAudioError("Invalid sample rate", -9997)

    def check_output_settings(self, *, samplerate, **_):
        if samplerate not in self.rates["output"]:
            raise PortAudioError("Invalid sample rate", -9997)

    def InputStream(self, **options):  # noqa: N802
        if self.busy:
            raise PortAudioError("Error opening InputStream: Device unavailable", -9985)
        self.streams.append(FakeStream(**options))
        return self.streams[-1]

    OutputStream = InputStream


@pytest.fixture
def sd(monkeypatch):
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake
