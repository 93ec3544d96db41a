"""Real streams on virtual devices: scripts/virtual_devices.sh python -m pytest -m audio_device.

A sound server, PortAudio and our callbacks; nothing is stood in for. What is said into the
microphone arrives, what is played is heard, and devices may die in between.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from antiphon.apps.device_thread import DeviceThread
from antiphon.apps.devices import Wanted, load_sounddevice
from antiphon.apps.sound_card import SoundCard
from benchmarks import virtual_sound as room

pytestmark = pytest.mark.audio_device
SCRIPT = Path(__file__).parents[2] / "scripts" / "virtual_devices.sh"


@pytest.fixture
def card():
    if "VIRTUAL_DEVICES" not in os.environ:
        pytest.skip("no virtual devices; run with scripts/virtual_devices.sh")
    return make_card()


def make_card(device_hz=None):
    heard, spoken = (
        Wanted("input", None, 16000, device_hz),
        Wanted("output", None, 24000, device_hz),
    )
    return SoundCard(heard, spoken, sd=load_sounddevice(), thread=DeviceThread())


def speech_like(rate_hz, seconds):
    """Nothing above 3 kHz, so that no conversion cuts it, and never the same again."""
    rng = np.random.default_rng(rate_hz)
    spectrum = np.fft.rfft(rng.standard_normal(round(rate_hz * seconds)))
    spectrum[round(3000 * seconds) :] = 0
    sound = np.fft.irfft(spectrum)
    return (0.3 * sound / np.abs(sound).max()).astype("f4")


def alike(heard, said):
    """The correlation of `said` with the part of `heard` that fits best."""
    size = 1 << (len(heard) + len(said)).bit_length()
    product = np.fft.rfft(heard, size) * np.conj(np.fft.rfft(said, size))
    at = int(np.argmax(np.fft.irfft(product, size)[: len(heard) - len(said)]))
    return float(np.corrcoef(heard[at : at + len(said)], said)[0, 1])


def run_for(card, seconds):
    """Keep the card going; returns what the microphone heard [S], and the news."""
    blocks, news, end = [], [], time.monotonic() + seconds
    while time.monotonic() < end:
        news += card.watch()
        card.loudspeaker.pump()
        blocks += card.microphone.blocks()
        time.sleep(0.002)
    return np.concatenate([*blocks, np.zeros(0, "f4")]), news


@pytest.mark.parametrize("device_hz", [None, 8000, 48000])
def test_what_is_said_is_heard_and_what_is_played_too(device_hz, card):
    said, played = speech_like(16000, 1.0), speech_like(24000, 1.0)
    with make_card(device_hz) as card, room.Listener() as listener:
        start = time.time()
        run_for(card, 0.3)
        speaker = room.say(said)
        card.loudspeaker.write(played)
        heard, news = run_for(card, 2.0)
        speaker.wait()
        listened = listener.between(start, time.time())
        assert news == []
        assert card.loudspeaker.heard == len(played)
        assert card.faults["overruns"] == 0
    assert alike(heard, said) > 0.95
    assert alike(listened, played) > 0.95


def test_devices_that_die_are_back_within_two_seconds(card):
    with card:
        run_for(card, 0.2)
        card.loudspeaker.write(speech_like(24000, 3.0))
        for kind in ("sink-input", "source-output"):
            room.unplug(kind, os.getpid())
            _, news = run_for(card, 1.0)
            assert [line.split()[0] for line in news] == [
                "the",
                "input:" if "out" in kind else "output:",
            ]
        run_for(card, 3.0)
        assert card.loudspeaker.heard == 72000
        assert len(card.ports) == 2


def test_a_sound_server_that_dies_and_comes_back_is_found_again():
    """On a server of its own, for nobody else has it afterwards."""
    if shutil.which("pulseaudio") is None:
        pytest.skip("no pulseaudio; apt install pulseaudio pulseaudio-utils")
    code = "from tests.apps.test_virtual_devices import outlive; outlive()"
    command = [str(SCRIPT), sys.executable, "-c", code]
    done = subprocess.run(command, cwd=SCRIPT.parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def outlive():
    """Kill the server, start it again, and want both devices back two seconds later."""
    folder = Path(os.environ["VIRTUAL_DEVICES"])
    daemon = int((folder / "pid").read_text())
    words = Path(f"/proc/{daemon}/cmdline").read_bytes().decode().split("\0")[:-1]
    with make_card() as card:
        run_for(card, 0.3)
        os.kill(daemon, signal.SIGKILL)
        _, news = run_for(card, 2.0)
        assert len(news) == 2, news
        assert not card.ports
        again = subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            while "vmic2" not in room.pactl("list", "short", "sources"):
                time.sleep(0.05)
            run_for(card, 2.0)
            assert len(card.ports) == 2
        finally:
            again.terminate()
            again.wait()
