"""Echo: WebRTC's canceller removes what was played, and keeps what was said."""

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.apps.devices import Port
from antiphon.apps.echo import LAG_BLOCKS, WINDOW_BLOCKS, Cleaner, Reference
from antiphon.apps.streams import Playout
from antiphon.runtime.errors import AudioDeviceError
from antiphon.runtime.playback import Playback
from antiphon.runtime.resample import resample

QUESTIONS = Path(__file__).parents[2] / "nano" / "bundle" / "questions"


def level_db(pcm):
    return 10 * np.log10(np.mean(np.square(pcm)) + 1e-12)


@pytest.fixture(scope="module")
def speech():
    """At 16 kHz."""
    files = ("add_three_four", "capital_france", "day_after_monday")
    return np.concatenate(
        [soundfile.read(QUESTIONS / f"{name}.flac", dtype="float32")[0] for name in files]
    )


def clean(near, far, **options):
    cleaner = Cleaner(16000, 24000, **options)
    pairs = zip(np.split(near, len(near) // 160), np.split(far, len(near) // 160), strict=True)
    return np.concatenate([cleaner.process(*pair) for pair in pairs])


def test_echo_goes_and_speech_stays(speech):
    played = speech[: len(speech) // 160 * 160]
    far = resample(played, 16000, 24000)[: len(played) * 3 // 2]
    room = np.zeros(1600, "f4")
    room[640], room[900], room[1500] = 0.3, 0.1, -0.05  # 40 ms later, -10 dB, and two walls
    noise = 1e-4 * np.random.default_rng(0).standard_normal(len(played))
    echo = (np.convolve(played, room)[: len(played)] + noise).astype("f4")
    kept = clean(echo, far, cancel_echo=True)
    half = len(echo) // 2
    assert level_db(kept[half:]) < level_db(echo[half:]) - 30
    silence = np.zeros_like(far)
    assert level_db(clean(played, silence, cancel_echo=True)) > level_db(played) - 3


def test_noise_is_reduced_without_a_reference(speech):
    noise = (0.01 * np.random.default_rng(0).standard_normal(32000)).astype("f4")
    kept = clean(noise, np.zeros(48000, "f4"), cancel_echo=False)
    assert level_db(kept[16000:]) < level_db(noise) - 6


def test_a_missing_library_matters_only_with_a_loudspeaker(monkeypatch):
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    with pytest.raises(AudioDeviceError, match=r"install 'antiphon\[audio\]', or .* --no-aec"):
        Cleaner(16000, 24000, cancel_echo=True)
    near = np.ones(160, "f4")
    plain = Cleaner(16000, 24000, cancel_echo=False)
    plain.reset()
    assert plain.process(near, np.zeros(240, "f4")) is near


class Pair:
    """A loudspeaker that plays a ramp, and a microphone that asks for what was played."""

    def __init__(self, sd, rate_hz=24000):
        self.port = Port("output", 1, "speaker", rate_hz)
        self.source = Playback(rate_hz * 20)
        self.source.write(np.arange(1, rate_hz * 15 + 1, dtype="f4") / rate_hz)
        self.playout = Playout(sd, self.port, self.source)
        self.reference = Reference(24000)
        self.reference.connect(self.playout)

    def play(self, blocks=1):
        for _ in range(blocks):
            self.playout.stream.deliver(np.zeros(self.port.block))


def number(block):
    """Which block of the ramp it is; None for silence."""
    return round((24000 * float(block[0]) - 1) / 240) if block.any() else None


STALL = dict.fromkeys(range(30, 35), 0)  # blocks played at these times


@pytest.mark.parametrize("played", ["steadily", "late", "never"])
def test_the_reference_keeps_step(played, sd):
    pair, numbers = Pair(sd), []
    counts = {"steadily": {}, "late": STALL | {34: 5}, "never": STALL}[played]
    for time in range(60):
        pair.play(counts.get(time, 1))
        numbers.append(number(pair.reference.take(0)))
    lag, steady = [None] * LAG_BLOCKS, list(range(60))
    assert numbers[:33] == (lag + steady)[:33]  # what waits is used up first
    if played == "never":  # what follows is heard later as well
        assert numbers[33:] == [None, None, *steady[30:55]]
    else:
        missing = {"steadily": [], "late": [33]}[played]
        expected = (lag + steady)[:60]
        assert numbers == [None if b in missing else e for b, e in enumerate(expected)]


@pytest.mark.parametrize("burst", [2, 3, 4])
def test_what_comes_in_bursts_is_whole_after_a_stall(burst, sd):
    pair, numbers = Pair(sd), []
    for time in range(600):
        if time % burst == 0 and time not in range(100, 115):
            pair.play(burst)
        numbers.append(number(pair.reference.take(0)))
    assert None not in numbers[150:]
    assert numbers[-400:] == list(range(numbers[-1] - 399, numbers[-1] + 1))


def test_a_late_reader_loses_no_step(sd):
    pair = Pair(sd)
    pair.play(30)
    blocks = [number(pair.reference.take(29 - i)) for i in range(30)]
    assert blocks == [None] * LAG_BLOCKS + list(range(30 - LAG_BLOCKS))


def test_a_reference_that_lags_catches_up(sd):
    pair = Pair(sd)
    pair.play(8)  # more than the microphone has heard, and than it may lag
    for _ in range(2 * WINDOW_BLOCKS):
        pair.play()
        last = pair.reference.take(0)
    newest = (8 + 2 * WINDOW_BLOCKS - 1) * 240
    assert newest - 24000 * last[0] <= (LAG_BLOCKS + 2) * 240


def test_what_is_missing_is_silence(sd):
    reference = Reference(24000)
    assert not reference.take(0).any()
    pair = Pair(sd)
    assert not pair.reference.take(0).any()
    pair.play(LAG_BLOCKS + 1)
    blocks = [pair.reference.take(0).any() for _ in range(LAG_BLOCKS + 2)]
    assert blocks == [False] * LAG_BLOCKS + [True, True]


def test_what_was_played_before_the_connection_is_not_the_reference(sd):
    pair = Pair(sd, 48000)
    pair.play(10)
    pair.reference.connect(pair.playout)
    pair.play(2)
    blocks = [pair.reference.take(0) for _ in range(LAG_BLOCKS + 1)]
    assert 24000 * blocks[-1][120] == pytest.approx(10 * 240 + 120, abs=20)
