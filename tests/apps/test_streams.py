"""Streams, microphone and loudspeaker: samples arrive in order, once, and losses are counted."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.apps.devices import Port
from antiphon.apps.loudspeaker import AHEAD_MS, Loudspeaker
from antiphon.apps.microphone import BlockReader, Microphone
from antiphon.apps.streams import Capture, Playout, close
from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.errors import AudioDeviceError


def mic_port(rate_hz=16000, channels=1):
    return Port("input", 0, "mic", rate_hz, channels)


def plug(sd, speaker, rate_hz=24000, channels=1):
    """Open a loudspeaker of that rate on `speaker`; returns the stand-in for the device."""
    port = Port("output", 1, "speaker", rate_hz, channels)
    playout = Playout(sd, port, speaker.source(rate_hz))
    speaker.connect(playout)
    return playout.stream


def play(stream, blocks=1):
    return np.concatenate(
        [stream.deliver(np.full(stream.options["blocksize"], 9.0)) for _ in range(blocks)]
    )


def ramp(start, count):
    return np.arange(start, start + count, dtype="f4") / 65536


def test_a_busy_device_is_named(sd):
    sd.busy = True
    with pytest.raises(AudioDeviceError, match=r"mic: cannot be opened: .*Device unavailable"):
        Capture(sd, mic_port())


def test_a_stream_that_does_not_start_is_closed(sd, monkeypatch):
    def refuse(self):
        raise sd.PortAudioError("Device unavailable", -9985)

    stream_type = type(Capture(sd, mic_port()).stream)
    monkeypatch.setattr(stream_type, "start", refuse)
    with pytest.raises(AudioDeviceError, match="Device unavailable"):
        Capture(sd, mic_port())
    assert sd.streams[-1].closed


def test_a_microphone_gathers_and_counts_what_was_lost(sd):
    microphone, capture = Microphone(16000), Capture(sd, mic_port(channels=2))
    microphone.connect(capture)
    stream = capture.stream
    assert stream.options["blocksize"] == 160
    stream.deliver(ramp(0, 100))
    assert microphone.blocks() == []
    stream.deliver(ramp(100, 100), input_overflow=True)
    (block,) = microphone.blocks()
    np.testing.assert_array_equal(block, ramp(0, 160))
    assert microphone.overruns == 1
    stream.deliver(np.zeros(16000 * 11))
    assert microphone.overruns == 2
    microphone.connect(None)
    assert microphone.blocks() == []
    assert microphone.overruns == 2
    close(stream)
    assert stream.closed


def test_a_microphone_at_another_rate_is_converted(sd):
    microphone, capture = Microphone(16000), Capture(sd, mic_port(44100))
    microphone.connect(capture)
    tone = np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)
    for block in np.split(tone, 100):
        capture.stream.deliver(block)
    heard = np.concatenate(microphone.blocks())
    assert 15600 <= len(heard) <= 16000
    expected = np.sin(2 * np.pi * 440 * np.arange(len(heard)) / 16000)
    np.testing.assert_allclose(heard[200:], expected[200:], atol=0.01)


def test_what_no_microphone_gives_is_clipped(sd):
    microphone, capture = Microphone(16000), Capture(sd, mic_port())
    microphone.connect(capture)
    capture.stream.deliver(np.full(160, 3.0))
    assert microphone.blocks()[0].max() == 1


@given(cuts=st.lists(st.integers(0, 500), min_size=1, max_size=20))
def test_blocks_do_not_depend_on_how_the_samples_came(cuts):
    ring, pieces = AudioRing(20_000), []
    reader = BlockReader(ring, 48000, 16000)
    sound = np.sin(np.arange(sum(cuts)) / 9).astype("f4")
    for start, count in zip(np.cumsum([0, *cuts[:-1]]), cuts, strict=True):
        ring.write(sound[start : start + count])
        reader.pull()
        pieces += [reader.take() for _ in range(len(reader))]
    whole_ring = AudioRing(20_000)
    whole_ring.write(sound)
    whole = BlockReader(whole_ring, 48000, 16000)
    whole.pull()
    expected = [whole.take() for _ in range(len(whole))]
    assert len(pieces) == len(expected)
    for a, b in zip(pieces, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_a_loudspeaker_plays_the_queue_itself(sd):
    speaker = Loudspeaker(24000)
    stream = plug(sd, speaker, channels=2)
    speaker.write(ramp(1, 300))
    assert speaker.playing
    speaker.expecting = True
    np.testing.assert_array_equal(play(stream), ramp(1, 240))
    assert speaker.underruns == 0
    np.testing.assert_array_equal(play(stream, 2)[:60], ramp(241, 60))
    assert speaker.underruns == 1  # one gap, two blocks long
    speaker.expecting = False
    stream.deliver(np.zeros(240), output_underflow=True)
    assert (speaker.underruns, speaker.dropouts) == (1, 1)
    assert not speaker.playing


def test_a_reply_that_was_dropped_leaves_no_gap(sd):
    speaker = Loudspeaker(24000)
    stream = plug(sd, speaker)
    speaker.write(ramp(1, 300))
    speaker.expecting = True
    speaker.flush()
    assert not play(stream, 2).any()
    assert speaker.underruns == 0


def test_what_was_played_is_kept_for_the_echo_canceller(sd):
    speaker = Loudspeaker(24000)
    stream = plug(sd, speaker)
    speaker.write(ramp(1, 240))
    played = play(stream, 2)
    kept = np.empty(480, "f4")
    assert speaker._playout.reference.read(kept) == 480
    np.testing.assert_array_equal(kept, played)


def test_what_the_device_holds_back_is_not_heard_yet(sd):
    speaker = Loudspeaker(24000)
    stream = plug(sd, speaker)  # says that it holds 20 ms
    speaker.write(ramp(1, 2400))
    play(stream, 5)
    assert speaker.heard == 1200 - 480
    play(stream, 5)
    assert speaker.heard == 2400 - 480
    play(stream, 1)
    assert speaker.heard == 2400 - 240
    play(stream, 1)
    assert speaker.heard == 2400


@pytest.mark.parametrize("rate_hz", [8000, 44100, 48000])
def test_a_device_of_another_rate_hears_all_of_it(rate_hz, sd):
    speaker = Loudspeaker(24000)
    stream = plug(sd, speaker, rate_hz)
    tone = np.sin(2 * np.pi * 440 * np.arange(24000) / 24000).astype("f4")
    speaker.write(tone)
    played = []
    for _ in range(110):
        speaker.pump()
        played.append(play(stream))
    heard = np.concatenate(played)
    expected = np.sin(2 * np.pi * 440 * np.arange(rate_hz) / rate_hz)
    np.testing.assert_allclose(heard[200 : rate_hz - 200], expected[200:-200], atol=0.01)
    assert speaker.heard == 24000
    assert not speaker.playing


def test_little_is_converted_ahead_and_flushed_with_the_rest(sd):
    speaker = Loudspeaker(24000)
    stream = plug(sd, speaker, 48000)
    speaker.write(np.ones(48000, "f4"))
    for _ in range(10):
        speaker.pump()
    assert 48000 - len(speaker) == pytest.approx(24 * AHEAD_MS, abs=20)
    play(stream, 5)
    assert speaker.heard == pytest.approx(1200 - 480, abs=20)
    first = speaker.flush()
    assert first == 48000
    assert not speaker.playing
    assert not play(stream, 3)[480:].any()
    speaker.write(np.ones(2400, "f4"))
    speaker.pump()
    play(stream, 20)
    assert speaker.heard == pytest.approx(50400, abs=20)


@pytest.mark.parametrize("rate_hz", [24000, 48000])
def test_a_held_loudspeaker_is_silent_and_loses_nothing(rate_hz, sd):
    speaker = Loudspeaker(24000)
    stream = plug(sd, speaker, rate_hz)
    speaker.write(np.ones(4800, "f4"))
    speaker.pump()
    sound = [play(stream, 3)]
    speaker.hold()
    speaker.expecting = True
    silence = play(stream, 5)
    speaker.pump()
    assert not silence[rate_hz // 100 :].any()
    assert speaker.underruns == 0
    speaker.release()
    speaker.expecting = False
    for _ in range(30):
        speaker.pump()
        sound.append(play(stream))
    played = np.sum(np.abs(np.concatenate(sound)) > 0) + np.sum(np.abs(silence) > 0)
    assert played == pytest.approx(rate_hz / 5, abs=rate_hz / 100)


@given(rates=st.lists(st.sampled_from([24000, 48000, 16000]), min_size=2, max_size=4))
def test_the_next_device_goes_on_where_the_last_one_went(rates, sd_module):
    speaker, played = Loudspeaker(24000), 0.0
    speaker.write(np.ones(12000, "f4"))
    for rate_hz in rates:
        stream = plug(sd_module, speaker, rate_hz)
        speaker.pump()
        played += np.sum(play(stream, 6)) / rate_hz
        stream.active = False
        speaker.pump()
        speaker.connect(None)
        assert speaker.heard <= 24000 * played + 60
    stream = plug(sd_module, speaker, 24000)
    for _ in range(60):
        speaker.pump()
        played += np.sum(play(stream)) / 24000
    assert played == pytest.approx(0.5, abs=0.002 * len(rates))
    assert speaker.heard == 12000
    assert not speaker.playing
