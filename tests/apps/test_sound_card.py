"""A sound card survives everything that happens to devices, with a stand-in for PortAudio."""

import subprocess
import sys
import threading

import numpy as np
import pytest

from antiphon.apps import sound_card
from antiphon.apps.device_thread import DeviceThread
from antiphon.apps.devices import Wanted
from antiphon.apps.sound_card import RESTART_TRIES, RETRY_S, STALL_S, SoundCard
from antiphon.runtime.errors import AudioDeviceError


class Bench:
    """A sound card on a clock of ours."""

    def __init__(self, sd, name=None, *, spoken=True):
        sd.rates = {"input": {16000}, "output": {24000, 48000}}
        self.sd, self.now, self.thread = sd, 100.0, DeviceThread()
        self.card = SoundCard(
            Wanted("input", name, 16000),
            Wanted("output", None, 24000) if spoken else None,
            sd=sd,
            thread=self.thread,
            clock=lambda: self.now,
        )

    def open(self):
        self.card.check()
        self.card.__enter__()
        return self.sd.streams[-2:]

    def look(self, seconds=0.0, *, beating=True, hearing=False):
        """Time passes, sound flows in the streams that are open; returns the news."""
        news = []
        for _ in range(max(1, round(seconds / 0.05))):
            self.now += 0.05 if seconds else 0
            for stream in self.sd.streams:
                for _ in range(5 if beating and stream.active else 0):
                    stream.deliver(np.zeros(stream.options["blocksize"]))
            news += self.card.watch(hearing=hearing)
            self.thread.call(lambda: None)  # whatever was asked for is done
        return news + self.card.watch(hearing=hearing)


def test_both_devices_run_and_are_closed(sd):
    bench = Bench(sd)
    with bench.card as card:
        assert [port.name for port in card.ports] == ["mic", "speaker"]
        assert bench.look(10) == []
    assert len(sd.streams) == 2
    assert all(stream.closed for stream in sd.streams)


def test_written_replies_need_no_loudspeaker(sd):
    bench = Bench(sd, spoken=False)
    with bench.card as card:
        assert len(sd.streams) == 1
        assert card.loudspeaker is None
        assert card.playout is None
        assert bench.look(2) == []


def test_what_cannot_be_opened_leaves_nothing_open(sd):
    bench = Bench(sd)
    opened, sd.OutputStream = sd.streams, lambda **_: _refuse(sd)
    with pytest.raises(AudioDeviceError, match="speaker: cannot be opened: Device unavailable"):
        bench.open()
    assert [stream.closed for stream in opened] == [True]


def test_a_missing_device_is_found_before_anything_is_opened(sd):
    with pytest.raises(AudioDeviceError, match="no input 'nobody'"):
        Bench(sd, "nobody").card.check()


def test_a_device_that_dies_is_opened_again_at_once(sd):
    bench = Bench(sd)
    microphone, speaker = bench.open()
    bench.card.loudspeaker.write(np.ones(24000, "f4"))
    bench.look(0.2)
    heard, changes = bench.card.loudspeaker.heard, bench.card.changes
    speaker.active = False
    news = bench.look(0.1)
    assert news == [
        "the output speaker is gone; waiting for it",
        "output: speaker at 24000 Hz",
    ]
    assert bench.card.changes == changes + 2
    assert speaker.closed
    assert not microphone.closed
    assert heard < bench.card.loudspeaker.heard <= heard + 2400 + 480
    bench.look(1.2)
    assert bench.card.loudspeaker.heard == 24000


def test_a_device_that_falls_silent_is_dead(sd):
    bench = Bench(sd)
    microphone, _ = bench.open()
    assert bench.look(STALL_S - 0.1, beating=False) == []
    bench.look(0.1)  # a last block
    assert bench.look(STALL_S - 0.1, beating=False) == []
    assert "the input mic is gone; waiting for it" in bench.look(0.2, beating=False)
    assert microphone.closed


def test_a_device_that_stays_away_is_waited_for(sd):
    bench = Bench(sd)
    microphone, _ = bench.open()
    sd.rates["input"], microphone.active = set(), False
    assert bench.look(60) == ["the input mic is gone; waiting for it"]
    assert sd.restarts > 5
    sd.rates["input"] = {16000}
    assert bench.look(2 * RETRY_S) == ["input: mic at 16000 Hz"]


def test_the_default_takes_the_place_of_a_device_that_was_named(sd, monkeypatch):
    usb = dict(index=2, name="usb", max_input_channels=1, max_output_channels=0)
    monkeypatch.setattr(type(sd), "DEVICES", (*sd.DEVICES, usb))
    bench = Bench(sd, "usb")
    bench.open()
    assert bench.card.ports[0].name == "usb"
    monkeypatch.setattr(type(sd), "DEVICES", sd.DEVICES[:2])
    bench.sd.streams[0].active = False
    assert bench.look(2) == ["the input usb is gone; waiting for it", "input: mic at 16000 Hz"]


def test_portaudio_looks_again_when_that_interrupts_nothing(sd):
    bench = Bench(sd)
    microphone, _ = bench.open()
    bench.card.loudspeaker.write(np.ones(24000 * 5, "f4"))
    sd.rates["input"], microphone.active = set(), False
    bench.look(RESTART_TRIES * RETRY_S + 0.5)
    assert sd.restarts == 0  # somebody listens
    bench.look(3)
    bench.look(RESTART_TRIES * RETRY_S + 0.5)
    assert sd.restarts == 1
    bench.look(0.5)
    assert [port.kind for port in bench.card.ports] == ["output"]
    sd.rates["input"] = {16000}
    bench.look(0.5)
    assert [port.kind for port in bench.card.ports] == ["input", "output"]


def test_who_speaks_is_not_interrupted_for_the_sake_of_a_loudspeaker(sd):
    bench = Bench(sd)
    microphone, speaker = bench.open()
    sd.rates["output"], speaker.active = set(), False
    bench.look(3 * RESTART_TRIES * RETRY_S, hearing=True)
    assert sd.restarts == 0
    assert not microphone.closed
    bench.look(2 * RESTART_TRIES * RETRY_S)
    assert sd.restarts > 0


def test_both_devices_gone_at_once_and_back(sd, monkeypatch):
    """PortAudio is not started again while one of them is already being opened."""
    bench, begun, go_on, under = Bench(sd), threading.Event(), threading.Event(), []

    def terminate():
        begun.set()
        go_on.wait()
        under.append([stream for stream in sd.streams if not stream.closed])

    bench.open()
    monkeypatch.setattr(sd, "_terminate", terminate)
    sd.rates = {"input": set(), "output": set()}
    for stream in sd.streams:
        stream.active = False
    while not begun.wait(0.001):
        bench.now += 0.05
        bench.card.watch()
    for _ in range(20):  # the thread of the devices is busy; the other device's turn comes, too
        bench.now += 0.05
        bench.card.watch()
    sd.rates = {"input": {16000}, "output": {24000}}
    go_on.set()
    bench.look(1)
    assert [port.kind for port in bench.card.ports] == ["input", "output"]
    assert under == [[]]


def test_a_start_that_failed_is_tried_again(sd, monkeypatch):
    bench, starts = Bench(sd), []
    microphone, _ = bench.open()
    monkeypatch.setattr(sd, "_terminate", lambda: _refuse(sd))
    monkeypatch.setattr(sd, "_initialize", lambda: starts.append(True))
    sd.rates["input"], microphone.active = set(), False
    bench.look(2 * RESTART_TRIES * RETRY_S + 1)
    assert len(starts) > 1


def test_a_device_that_never_closes_keeps_nobody(sd, monkeypatch):
    blocked, given_up = threading.Event(), []
    monkeypatch.setattr(sound_card, "close", lambda stream: blocked.wait())
    monkeypatch.setattr(sound_card, "GOODBYE_S", 0.05)
    monkeypatch.setattr(sound_card, "give_up", lambda: given_up.append(True))
    bench = Bench(sd)
    with bench.card:
        pass
    blocked.set()
    assert given_up


def test_an_attempt_that_hangs_stops_nothing_else(sd, monkeypatch):
    bench = Bench(sd)
    bench.open()
    blocked = threading.Event()
    monkeypatch.setattr(sd, "InputStream", lambda **_: blocked.wait())
    sd.streams[0].active = False
    bench.card.watch()
    for _ in range(100):
        bench.now += 0.1
        sd.streams[1].deliver(np.zeros(240))
        bench.card.watch()
    assert [port.kind for port in bench.card.ports] == ["output"]
    monkeypatch.undo()
    blocked.set()


def _refuse(sd):
    raise sd.PortAudioError("Device unavailable", -9985)


def test_a_program_whose_sound_system_hangs_ends_at_once():
    code = (
        "import atexit, sys, types; from antiphon.apps.device_thread import give_up\n"
        "hang = lambda: print('cleaned up by PortAudio')\n"
        "sys.modules['sounddevice'] = types.SimpleNamespace(_exit_handler=hang)\n"
        "atexit.register(hang); give_up(); print('said before')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "said before\n")
