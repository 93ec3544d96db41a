"""Devices, with a stand-in for PortAudio: what is missing is named, the best rate is taken."""

import json
import sys
import threading

import pytest

from antiphon.apps import cli, device_thread
from antiphon.apps.device_thread import DeviceThread
from antiphon.apps.devices import Port, Wanted, choose, load_sounddevice
from antiphon.runtime.errors import AudioDeviceError

MIC, SPEAKER = Wanted("input", None, 16000), Wanted("output", None, 24000)


def named(name, rate_hz=16000, kind="input"):
    return Wanted(kind, name, rate_hz)


def test_a_missing_library_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["devices"]) == 1
    assert capsys.readouterr().err == (
        "antiphon: sounddevice is not installed; install the extra: pip install 'antiphon[audio]'\n"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise OSError('PortAudio library not found')", "apt install libportaudio2"),
        ("raise RuntimeError('no host')", "PortAudio does not start: no host; restart"),
    ],
)
def test_a_portaudio_that_does_not_load_is_named(source, said, monkeypatch, tmp_path, capsys):
    (tmp_path / "sounddevice.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    assert cli.main(["devices"]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", [["devices"], ["talk", "--list-devices"]])
@pytest.mark.usefixtures("default_bundle")
def test_devices_are_listed_with_their_defaults(command, sd, capsys):
    assert cli.main(command) == 0
    assert capsys.readouterr().out == (
        "  0  mic  (2 in, 0 out, 44100 Hz)  default input\n"
        "  1  speaker  (0 in, 2 out, 44100 Hz)  default output\n"
    )


def test_devices_are_listed_for_programs(sd, capsys):
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
    assert choose(sd, SPEAKER) == Port("output", 1, "speaker", 24000)
    assert choose(sd, named("0")).rate_hz == 44100


def test_a_rate_that_is_demanded_is_the_only_one(sd):
    assert choose(sd, Wanted("output", None, 24000, 48000)).rate_hz == 48000
    with pytest.raises(AudioDeviceError, match="Invalid sample rate"):
        choose(sd, Wanted("output", None, 24000, 8000))


def test_a_device_without_mono_is_opened_in_stereo(sd):
    sd.channels = {2}
    assert choose(sd, SPEAKER).channels == 2


def test_a_whole_name_wins_over_a_part_of_one(sd, monkeypatch):
    more = dict(index=2, name="mic 2", max_input_channels=1, max_output_channels=0)
    monkeypatch.setattr(type(sd), "DEVICES", (more, *sd.DEVICES))
    monkeypatch.setattr(sd, "query_devices", lambda *a: ask(sd, *a))
    assert choose(sd, named("mic")).name == "mic"


def ask(sd, device=None, kind=None):
    found = [dict(d, index=i, default_samplerate=44100.0) for i, d in enumerate(sd.DEVICES)]
    return found if kind is None else found[device]


@pytest.mark.parametrize(("device", "said"), [("nobody", "no input 'nobody'"), ("1", "no input")])
def test_an_unknown_device_is_named(sd, device, said):
    with pytest.raises(AudioDeviceError, match=said):
        choose(sd, named(device))


def test_a_machine_without_a_microphone_is_named(sd, monkeypatch):
    monkeypatch.setattr(sd, "query_devices", lambda *_: _raise(ValueError("no -1")))
    with pytest.raises(AudioDeviceError, match="no default input; plug one in, or name one with"):
        choose(sd, MIC)


def _raise(error):
    raise error


def test_a_device_without_a_usable_rate_is_named(sd):
    sd.rates["input"] = {8000}
    with pytest.raises(AudioDeviceError, match="mic: cannot be opened: Invalid sample rate"):
        choose(sd, MIC)


def test_what_the_system_below_says_is_passed_on(sd, monkeypatch):
    refused = sd.PortAudioError("Unanticipated host error", -9999, (0, -13, "Permission denied"))

    def refuse(**_):
        raise refused

    monkeypatch.setattr(sd, "check_input_settings", refuse)
    with pytest.raises(AudioDeviceError, match=r"host error \(Permission denied\); close what"):
        choose(sd, MIC)


def test_calls_run_one_after_the_other_and_their_errors_come_back():
    thread, order = DeviceThread(), []
    futures = [thread.submit(lambda i=i: order.append(i)) for i in range(5)]
    assert thread.call(lambda: threading.current_thread().name) == "devices"
    assert order == [0, 1, 2, 3, 4]
    assert all(future.done() for future in futures)
    with pytest.raises(ZeroDivisionError):
        thread.call(lambda: 1 / 0)
    with pytest.raises(TimeoutError, match="the call's own"):
        thread.call(fail_in_time)


def fail_in_time():
    raise TimeoutError("the call's own")


def test_a_call_that_hangs_is_given_up(monkeypatch):
    thread, blocked, given_up = DeviceThread(), threading.Event(), []
    monkeypatch.setattr(device_thread, "give_up", lambda: given_up.append(True))
    with pytest.raises(AudioDeviceError, match="has not answered for 0 s; restart it"):
        thread.call(blocked.wait, patience_s=0.1)
    blocked.set()
    assert given_up
