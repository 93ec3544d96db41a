"""Devices, with a stand-in for PortAudio: what is missing is named, callbacks only copy."""

import json
import sys
import time

import numpy as np
import pytest

from antiphon.apps import cli
from antiphon.apps.devices import Loudspeaker, Microphone, choose, load_sounddevice
from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.errors import AudioDeviceError


def test_a_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["devices"]) == 1
    assert capsys.readouterr().err == (
        "antiphon: sounddevice is not installed; install the extra: pip install 'antiphon[audio]'\n"
    )


def test_a_missing_portaudio_is_named(monkeypatch, tmp_path, capsys):
    (tmp_path / "sounddevice.py").write_text("raise OSError('PortAudio library not found')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    assert cli.main(["devices"]) == 1
    assert "apt install libportaudio2" in capsys.readouterr().err


def test_devices_are_listed_with_their_defaults(sd, capsys):
    assert cli.main(["devices"]) == 0
    assert capsys.readouterr().out == (
        "  0  mic  (2 in, 0 out, 44100 Hz)  default input\n"
        "  1  speaker  (0 in, 2 out, 44100 Hz)  default output\n"
    )
    assert cli.main(["devices", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["mic", "speaker"]


def test_no_device_at_all_is_an_error(sd, monkeypatch, capsys):
    monkeypatch.setattr(type(sd), "DEVICES", ())
    assert cli.main(["devices"]) == 1
    assert capsys.readouterr().err.startswith("antiphon: no sound device on this machine")
    assert cli.main(["devices", "--json"]) == 0
    assert capsys.readouterr().out == "[]\n"


def test_the_rate_of_the_model_is_preferred(sd):
    assert load_sounddevice() is sd
    assert choose(sd, "output", None, 24000).rate_hz == 24000
    assert choose(sd, "input", "0", 16000).rate_hz == 44100


@pytest.mark.parametrize(("device", "said"), [("nobody", "no input 'nobody'"), ("1", "no input")])
def test_an_unknown_device_is_named(sd, device, said):
    with pytest.raises(AudioDeviceError, match=said):
        choose(sd, "input", device, 16000)


def test_a_device_without_a_usable_rate_is_named(sd):
    sd.rates["input"] = {8000}
    with pytest.raises(AudioDeviceError, match="mic: cannot be opened: Invalid sample rate"):
        choose(sd, "input", None, 16000)


def test_a_busy_device_is_named(sd):
    port = choose(sd, "input", None, 16000)
    sd.busy = True
    with pytest.raises(AudioDeviceError, match=r"mic: cannot be opened: .*Device unavailable"):
        Microphone(sd, port, 16000)


def test_a_microphone_gathers_and_counts_what_was_lost(sd):
    sd.rates["input"] = {16000}
    with Microphone(sd, choose(sd, "input", None, 16000), 16000) as microphone:
        (stream,) = sd.streams
        assert stream.options["blocksize"] == 160
        stream.deliver([0.1, 0.2])
        stream.deliver([0.3], input_overflow=True)
        np.testing.assert_array_equal(microphone.read(), np.array([0.1, 0.2, 0.3], "f4"))
        assert microphone.overruns == 1
        stream.deliver(np.zeros(16000 * 11))
        assert microphone.overruns == 2
    assert stream.closed


def test_a_microphone_at_another_rate_is_converted(sd):
    with Microphone(sd, choose(sd, "input", None, 16000), 16000) as microphone:
        for block in np.split(np.sin(np.arange(44100) / 20), 100):
            sd.streams[0].deliver(block)
        assert len(microphone.read()) == pytest.approx(16000, abs=200)


def test_a_loudspeaker_plays_the_source_itself(sd):
    source = AudioRing(24000)
    with Loudspeaker(sd, choose(sd, "output", None, 24000), source, 24000) as speaker:
        (stream,) = sd.streams
        source.write(np.array([1, 2, 3], "f4"))
        assert speaker.playing
        speaker.expecting = True
        np.testing.assert_array_equal(stream.deliver([9, 9]), [1, 2])
        assert speaker.underruns == 0
        np.testing.assert_array_equal(stream.deliver([9, 9]), [3, 0])
        assert speaker.underruns == 1
        speaker.expecting = False
        np.testing.assert_array_equal(stream.deliver([9, 9], output_underflow=True), [0, 0])
        assert speaker.underruns == 1
        assert not speaker.playing
        speaker.pump()


def test_a_loudspeaker_at_another_rate_stays_a_little_ahead(sd):
    sd.rates["output"] = {44100}
    source = AudioRing(24000 * 2)
    with Loudspeaker(sd, choose(sd, "output", None, 24000), source, 24000) as speaker:
        source.write(np.ones(24000, "f4"))
        for _ in range(10):
            speaker.pump()
        assert 24000 - 2 * 4800 <= len(source) < 24000
        played = sd.streams[0].deliver(np.zeros(441))
        np.testing.assert_allclose(played[50:], 1, atol=0.02)
        source.flush()
        speaker.stop()
        assert not speaker.playing
        assert not sd.streams[0].deliver(np.ones(441)).any()


@pytest.mark.audio_device
def test_the_real_devices_run():
    sd, playback = load_sounddevice(), AudioRing(24000)
    source, sink = choose(sd, "input", None, 16000), choose(sd, "output", None, 24000)
    with Microphone(sd, source, 16000) as heard, Loudspeaker(sd, sink, playback, 24000) as spoken:
        playback.write(np.zeros(2400, "f4"))
        deadline = time.monotonic() + 5
        count = 0
        while (count < 1600 or spoken.playing) and time.monotonic() < deadline:
            count += len(heard.read())
            spoken.pump()
            time.sleep(0.01)
    assert count >= 1600
    assert not spoken.playing
    assert heard.overruns == 0


def test_a_device_that_goes_away_is_an_error(sd):
    source = AudioRing(100)
    with Loudspeaker(sd, choose(sd, "output", None, 24000), source, 24000) as speaker:
        sd.streams[0].active = False
        with pytest.raises(AudioDeviceError, match="speaker: the output is gone"):
            speaker.pump()
