"""`talk`: push to talk, interruption, recordings, and a terminal that is always restored."""

import os
import signal
import sys
import termios

import numpy as np
import pytest
import soundfile

from antiphon.apps import cli
from antiphon.apps.devices import Loudspeaker, Microphone, choose
from antiphon.apps.keys import END, keyboard
from antiphon.apps.talk import Recorder, Talk
from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import AudioError
from antiphon.runtime.manifest import SamplingConfig
from antiphon.runtime.reply import Ending
from antiphon.runtime.scheduler import Job
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig

SAMPLING = SamplingConfig(max_new_tokens=12)
SPEECH = 0.3 * np.sin(np.arange(160) / 5)


class Room:
    """A talk on stand-in devices; every `step` is 10 ms of sound in and out."""

    def __init__(self, sd, bundle, folder=None, config=None, out_hz=24000):
        sd.rates = {"input": {16000}, "output": {out_hz}}
        config = config or SessionConfig(sampling=SAMPLING)
        playback = AudioRing(24000 * 5)
        self.session = Session(bundle, config, playback=playback)
        self.microphone = Microphone(sd, choose(sd, "input", None, 16000), 16000)
        sink = choose(sd, "output", None, 24000)
        self.loudspeaker = Loudspeaker(sd, sink, playback, 24000)
        self.input, self.output = sd.streams
        recorder = folder and Recorder(folder, 16000, 24000)
        self.talk = Talk(self.session, self.microphone, self.loudspeaker, recorder)
        self.heard = []

    def step(self, *, toggled=False) -> Job:
        self.input.deliver(SPEECH)
        job = self.talk.step(toggled=toggled)
        self.heard.append(self.output.deliver(np.zeros(self.output.options["blocksize"])))
        return job

    def ask(self, blocks=20) -> None:
        self.step(toggled=True)
        for _ in range(blocks):
            self.step()
        self.step(toggled=True)

    def until(self, done, limit=3000) -> None:
        for _ in range(limit):
            if done():
                return
            self.step()
        raise AssertionError("never came")

    @property
    def reply(self):
        return self.session.reply


@pytest.fixture(scope="module")
def bundle(bundle_folder):
    return Bundle.open(bundle_folder)


def test_a_turn_is_heard_answered_played_and_kept(sd, bundle, tmp_path, capsys):
    room = Room(sd, bundle, tmp_path / "kept")
    room.step()
    assert room.reply is None  # what is said before Enter is not heard
    room.ask()
    room.until(lambda: room.talk._reply is None and room.reply is not None)
    heard = np.concatenate(room.heard)
    np.testing.assert_array_equal(np.trim_zeros(heard), np.trim_zeros(room.reply.pcm))
    err = capsys.readouterr().err
    for line in ("-- listening", "-- thinking", "first sound", "-- Enter: talk"):
        assert line in err
    question, rate = soundfile.read(tmp_path / "kept" / "turn-001-question.wav")
    assert (rate, len(question)) == (16000, 21 * 160)
    reply, rate = soundfile.read(tmp_path / "kept" / "turn-001-reply.wav")
    assert (rate, len(reply)) == (24000, len(room.reply.pcm))


def test_enter_interrupts_a_reply_and_keeps_what_was_heard(sd, bundle):
    room = Room(sd, bundle)
    room.ask()
    room.until(lambda: room.loudspeaker.played > 2000)
    reply = room.reply
    room.ask()
    assert reply.ending in (Ending.CANCELLED, Ending.COMPLETE, Ending.TRUNCATED)
    assert reply.heard_codes is not None
    assert 1 <= reply.heard_codes < len(reply.codes)
    assert len(room.loudspeaker._source) == 0
    room.until(lambda: room.talk._reply is None and room.reply not in (None, reply))


def test_a_question_can_be_taken_back_while_it_is_understood(sd, bundle):
    room = Room(sd, bundle)
    room.step(toggled=True)
    for _ in range(5):
        room.step()
    room.talk._toggle()  # done, but no step has begun the reply yet
    room.talk._toggle()  # never mind
    room.step()
    assert room.talk.listening
    room.step(toggled=True)
    room.until(lambda: room.talk._reply is None and room.reply is not None)


def test_a_turn_that_does_not_fit_ends_but_the_talk_goes_on(sd, bundle, capsys):
    config = SessionConfig(sampling=SAMPLING, capacity_rows=64, chunk_rows=16)
    room = Room(sd, bundle, config=config)
    room.step(toggled=True)
    room.until(lambda: not room.talk.listening)
    assert "rows" in capsys.readouterr().err
    room.ask(2)
    room.until(lambda: room.talk._reply is None and room.reply is not None)


def test_a_loudspeaker_at_another_rate_plays_all_of_it(sd, bundle):
    room = Room(sd, bundle, out_hz=44100)
    room.ask()
    room.until(lambda: room.talk._reply is None and room.reply is not None)
    heard = np.concatenate(room.heard)
    assert abs(len(np.trim_zeros(heard)) - len(room.reply.pcm) * 44100 / 24000) < 900


def test_recordings_do_not_replace_older_ones(tmp_path, sd, bundle):
    room = Room(sd, bundle, tmp_path)
    room.ask()
    room.until(lambda: room.talk._reply is None and room.reply is not None)
    Recorder(tmp_path, 16000, 24000).save(np.zeros(1600, "f4"), room.reply)
    names = [f"turn-00{n}-{side}.wav" for n in (1, 2) for side in ("question", "reply")]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_a_folder_for_recordings_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "no" / "such"):
        with pytest.raises(AudioError, match="cannot be made"):
            Recorder(folder, 16000, 24000)


@pytest.fixture
def terminal():
    """(what the person types into, what the program reads)."""
    person, program = os.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def is_changed(fd) -> bool:
    return not termios.tcgetattr(fd)[3] & termios.ICANON


def test_keys_come_at_once_and_the_terminal_is_restored(terminal):
    person, program = terminal
    with keyboard(program) as keys:
        assert is_changed(program)
        assert keys() == ""
        os.write(person, b" q")
        assert set(keys()) <= set(" q")
    assert not is_changed(program)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_the_terminal_is_restored_after_an_error(error, terminal):
    with pytest.raises(error), keyboard(terminal[1]):
        raise error
    assert not is_changed(terminal[1])


def test_the_terminal_is_restored_when_the_program_is_ended(terminal):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, keyboard(terminal[1]):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert not is_changed(terminal[1])
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_end_of_a_pipe_is_the_end():
    read, write = os.pipe()
    with os.fdopen(read) as stdin, keyboard(stdin.fileno()) as keys:
        assert keys() == ""
        os.write(write, b"\n")
        assert keys() == "\n"
        os.close(write)
        assert keys() == END


@pytest.mark.usefixtures("default_bundle")
def test_the_command_opens_everything_and_ends_on_q(sd, monkeypatch, capsys):
    sd.rates = {"input": {16000}, "output": {24000}}
    read, write = os.pipe()
    os.write(write, b"\nq")
    monkeypatch.setattr(sys, "stdin", os.fdopen(read))
    interval = sys.getswitchinterval()
    try:
        assert cli.main(["talk"]) == 0
    finally:
        sys.setswitchinterval(interval)
        sys.stdin.close()
        os.close(write)
    assert all(stream.closed for stream in sd.streams)
    assert "mic at 16000 Hz, speaker at 24000 Hz" in capsys.readouterr().err


@pytest.mark.usefixtures("default_bundle")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--input", "nobody"], "no input 'nobody'"),
        (["--output", "7"], "no output '7'"),
        (["--bundle", "nowhere"], "nowhere: no bundle here"),
    ],
)
def test_what_cannot_be_opened_is_named(argv, said, sd, capsys):
    assert cli.main(["talk", *argv]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"antiphon: {said}")
    assert err.count("\n") == 1


def test_a_missing_library_comes_first(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    assert cli.main(["talk", "--bundle", "nowhere"]) == 1
    assert "pip install 'antiphon[audio]'" in capsys.readouterr().err
