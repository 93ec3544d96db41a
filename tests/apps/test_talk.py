"""`talk`: hands-free and by key, written replies, devices that die, files."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from antiphon.apps import cli
from antiphon.apps.conversation_files import Recorder, read_rows
from antiphon.apps.echo import LAG_BLOCKS
from antiphon.apps.parser import parse
from antiphon.apps.status_line import StatusLine
from antiphon.apps.talk import Talk, prepare
from antiphon.runtime.duplex_event import Activity, Kind
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.reply import Ending
from antiphon.runtime.scheduler import Job

QUESTION = Path(__file__).parents[2] / "nano" / "bundle" / "questions" / "add_three_four.flac"
SILENCE = np.zeros(160, "f4")
SHORT = ["--max-tokens", "10", "--no-aec"]


@pytest.fixture(scope="module")
def question():
    """Blocks of 10 ms of a person asking."""
    pcm = soundfile.read(QUESTION, dtype="float32")[0][:16000]
    return np.split(pcm[: len(pcm) // 160 * 160], len(pcm) // 160)


class Room:
    """A talk on stand-in devices; every `step` is 10 ms of sound in and out."""

    def __init__(self, sd, *options, rates=(16000, 24000), folder=None):
        sd.rates = {"input": {rates[0]}, "output": {rates[1]}}
        args = parse(["talk", *SHORT, *options])
        args.bundle = cli.default_bundle()
        parts = prepare(args)
        self.duplex, self.card = parts.duplex, parts.card
        self.recorder = folder and Recorder(folder, self.duplex.session.manifest)
        self.events, self.heard = [], []
        parts.card.__enter__()
        self.streams = sd.streams
        self.talk = Talk(replace(parts, recorder=self.recorder), StatusLine())
        tell = self.talk._report.tell
        self.talk._report.tell = lambda event: (self.events.append(event), tell(event))

    def step(self, block=SILENCE, keys="") -> None:
        for stream in filter(lambda stream: stream.active, self.streams):
            if stream.kind == "input":
                stream.deliver(np.resize(block, stream.options["blocksize"]))
            else:
                self.heard.append(stream.deliver(np.zeros(stream.options["blocksize"])))
        self.talk.step(set(keys))
        while self.talk.step() is not Job.WAIT:
            pass

    def say(self, blocks) -> None:
        for block in blocks:
            self.step(block)

    def until(self, *kinds, limit=3000):
        for _ in range(limit):
            if self.events and self.events[-1].kind in kinds:
                return self.events[-1]
            self.step()
        raise AssertionError(f"{kinds} never came: {self.events}")


def sound(room):
    return np.trim_zeros(np.concatenate(room.heard))


@pytest.mark.usefixtures("default_bundle")
def test_who_speaks_and_pauses_is_answered(sd, question, tmp_path, capsys):
    room = Room(sd, folder=tmp_path / "kept")
    room.say(question)
    reply = room.until(Kind.REPLY_ENDED).reply
    np.testing.assert_array_equal(sound(room), np.trim_zeros(reply.pcm))
    kinds = [event.kind for event in room.events]
    assert kinds[0] is Kind.SPEECH_START
    assert kinds[-3:] == [Kind.ENDPOINT, Kind.REPLY_BEGAN, Kind.REPLY_ENDED]
    err = capsys.readouterr().err
    assert "ms after you stopped" in err
    room.say([SILENCE] * LAG_BLOCKS)  # so much later it is in the file
    room.recorder.__exit__()
    both, rate = soundfile.read(tmp_path / "kept" / "sound-001.wav", dtype="float32")
    assert rate == 24000
    np.testing.assert_allclose(np.trim_zeros(both[:, 1]), sound(room), atol=1e-4)
    assert np.abs(both[:, 0]).max() == pytest.approx(np.abs(np.concatenate(question)).max(), 0.1)


@pytest.mark.usefixtures("default_bundle")
def test_who_speaks_over_a_reply_interrupts_it(sd, question):
    room = Room(sd)
    room.say(question)
    reply = room.until(Kind.REPLY_BEGAN).reply
    for _ in range(50):
        room.step()
    room.say(question)
    assert reply.ending is Ending.CANCELLED
    assert 1 <= reply.heard_codes < 10
    assert Kind.BARGE_IN in [event.kind for event in room.events]
    assert room.until(Kind.REPLY_BEGAN).reply is not reply


@pytest.mark.usefixtures("default_bundle")
def test_enter_stops_a_reply(sd, question, capsys):
    room = Room(sd)
    room.say(question)
    reply = room.until(Kind.REPLY_BEGAN).reply
    for _ in range(20):
        room.step()
    room.step(keys="\n")
    assert reply.ending is Ending.CANCELLED
    room.step()
    room.step()
    assert not room.heard[-1].any()
    assert "-- stopped" in capsys.readouterr().err


@pytest.mark.usefixtures("default_bundle")
def test_enter_begins_and_ends_a_turn_where_keys_decide(sd, question):
    room = Room(sd, "--push-to-talk")
    room.say(question)
    assert not room.events  # what is said before Enter is not heard
    room.step(keys="\r")
    assert room.duplex.activity is Activity.HEARING
    room.say(question[:40])
    room.step(keys=" ")
    reply = room.until(Kind.REPLY_BEGAN).reply
    room.step(keys="\n")
    assert room.duplex.activity is Activity.HEARING
    assert reply.ending is Ending.CANCELLED
    room.step(keys="\n")
    assert room.until(Kind.REPLY_ENDED).reply is not reply


@pytest.mark.usefixtures("default_bundle")
def test_a_muted_microphone_hears_nothing(sd, question, tmp_path):
    room = Room(sd, folder=tmp_path)
    room.step(keys="m")
    room.say(question)
    assert room.talk.muted
    assert not room.events
    room.recorder.__exit__()
    assert not soundfile.read(tmp_path / "sound-001.wav")[0].any()


@pytest.mark.usefixtures("default_bundle")
def test_written_replies_are_printed_as_they_come(sd, question, capsys):
    room = Room(sd, "--text-reply")
    room.say(question)
    reply = room.until(Kind.REPLY_ENDED).reply
    assert [stream.kind for stream in sd.streams] == ["input"]
    out = capsys.readouterr().out
    assert out.endswith("\n")
    assert len(out) == len(reply.text) + 1


@pytest.mark.usefixtures("default_bundle")
def test_devices_at_another_rate_play_all_of_it(sd, question):
    room = Room(sd, "--device-rate", "48000", rates=(48000, 48000))
    for block in question:
        room.step(np.repeat(block, 3))
    reply = room.until(Kind.REPLY_ENDED).reply
    assert abs(len(sound(room)) - 2 * len(np.trim_zeros(reply.pcm))) < 300


@pytest.mark.usefixtures("default_bundle")
def test_a_loudspeaker_that_dies_speaks_on(sd, question, capsys):
    room = Room(sd)
    room.say(question)
    reply = room.until(Kind.REPLY_BEGAN).reply
    for _ in range(20):
        room.step()
    sd.streams[1].active = False
    assert room.until(Kind.REPLY_ENDED).reply is reply
    assert reply.ending is not Ending.CANCELLED
    assert "-- the output speaker is gone; waiting for it\n-- output: speaker" in (
        capsys.readouterr().err
    )
    assert len(sound(room)) == pytest.approx(len(reply.pcm), abs=24000 / 5)


@pytest.mark.usefixtures("default_bundle")
def test_a_microphone_that_dies_in_a_question_hears_the_rest(sd, question):
    room = Room(sd)
    room.say(question[:80])
    sd.streams[0].active = False
    while len(sd.streams) < 3:
        room.step()
    room.say(question[80:])
    room.until(Kind.REPLY_ENDED)
    assert [event.kind for event in room.events].count(Kind.ENDPOINT) == 1


@pytest.mark.usefixtures("default_bundle")
def test_a_saved_conversation_is_resumed(sd, question, tmp_path):
    room = Room(sd, folder=tmp_path)
    room.say(question)
    room.until(Kind.REPLY_ENDED)
    rows = room.duplex.session.conversation.rows
    room.recorder.__exit__()
    np.testing.assert_array_equal(read_rows(tmp_path).rows, rows)
    sd.streams.clear()
    again = Room(sd, "--resume", str(tmp_path))
    np.testing.assert_array_equal(again.duplex.session.conversation.rows, rows)
    with pytest.raises(ConfigError, match=f"go on with it by --resume {tmp_path}"):
        Room(sd, "--save", str(tmp_path))
    Room(sd, "--save", str(tmp_path), "--resume", str(tmp_path))


@pytest.mark.usefixtures("default_bundle")
def test_the_command_opens_everything_and_ends_on_q(sd, tmp_path, monkeypatch, capsys):
    sd.rates = {"input": {16000}, "output": {24000}}
    read, write = os.pipe()
    os.write(write, b"m\nq")
    monkeypatch.setattr(sys, "stdin", os.fdopen(read))
    interval = sys.getswitchinterval()
    try:
        assert cli.main(["talk", "--save", str(tmp_path / "new" / "kept")]) == 0
    finally:
        sys.setswitchinterval(interval)
        sys.stdin.close()
        os.close(write)
    assert all(stream.closed for stream in sd.streams)
    err = capsys.readouterr().err
    assert "-- input: mic at 16000 Hz\n-- output: speaker at 24000 Hz" in err
    assert err.endswith("0 overruns, 0 underruns, 0 dropouts\n")
    assert soundfile.info(tmp_path / "new" / "kept" / "sound-001.wav").channels == 2


@pytest.mark.usefixtures("default_bundle")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--input", "nobody"], "no input 'nobody'"),
        (["--output", "7"], "no output '7'"),
        (["--bundle", "nowhere"], "nowhere: no bundle here"),
        (["--device-rate", "11025"], "mic: cannot be opened: Invalid sample rate"),
        (["--resume", "nowhere"], "nowhere/conversation.json: No such file"),
    ],
)
def test_what_cannot_be_opened_is_named(argv, said, sd, capsys):
    assert cli.main(["talk", *argv]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"antiphon: {said}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("option", [["--endpoint-ms", "90"], ["--device-rate", "x"]])
def test_what_cannot_be_meant_is_a_usage_error(option, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["talk", *option])
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_a_missing_library_comes_first(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["talk", "--bundle", "nowhere"]) == 1
    assert "pip install 'antiphon[audio]'" in capsys.readouterr().err


@pytest.mark.usefixtures("default_bundle", "sd")
def test_a_missing_echo_canceller_is_named(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pywebrtc_audio", None)
    assert cli.main(["talk"]) == 1
    assert "or use headphones and --no-aec" in capsys.readouterr().err
