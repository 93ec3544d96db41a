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

    latency = 0.02

    def __init__(self, kind, **options):
        self.kind, self.options = kind, options
        self.active = False
        self.closed = False

    def start(self):
        self.active = True

    def abort(self, ignore_errors=True):
        self.active = False

    def close(self, ignore_errors=True):
        self.active, self.closed = False, True

    def deliver(self, samples, **flags):
        """An input block; or an output block, returned."""
        mono = np.array(samples, "f4").reshape(-1, 1)
        block = np.repeat(mono, self.options["channels"], axis=1)
        status = SimpleNamespace(input_overflow=False, output_underflow=False)
        vars(status).update(flags)
        self.options["callback"](block, len(block), None, status)
        assert (block == block[:, :1]).all()
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
        self.restarts = 0
        self.channels = {1, 2}
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

    def check_input_settings(self, *, device, samplerate, channels, dtype):
        self._check("input", samplerate, channels)

    def check_output_settings(self, *, device, samplerate, channels, dtype):
        self._check("output", samplerate, channels)

    def _check(self, kind, rate, channels):
        if channels not in self.channels:
            raise PortAudioError("Invalid number of channels", -9998)
        if rate not in self.rates[kind]:
            raise PortAudioError("Invalid sample rate", -9997)

    def _terminate(self):
        assert all(stream.closed for stream in self.streams)
        self.restarts += 1

    def _initialize(self):
        pass

    def InputStream(self, **options):  # noqa: N802
        return self._open("input", options)

    def OutputStream(self, **options):  # noqa: N802
        return self._open("output", options)

    def _open(self, kind, options):
        if self.busy:
            raise PortAudioError(f"Error opening {kind}: Device unavailable", -9985)
        self.streams.append(FakeStream(kind, **options))
        return self.streams[-1]


@pytest.fixture(scope="session")
def sd_module():
    """For tests that open many streams of the same kind."""
    return FakeSoundDevice()


@pytest.fixture
def sd(monkeypatch):
    fake = FakeSoundDevice()
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    return fake
