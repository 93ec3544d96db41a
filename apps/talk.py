"""`antiphon talk`: Enter starts your turn, Enter ends it, Enter during a reply interrupts it.

Two callbacks copy samples; everything else happens in this one thread, one job at a time.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import AudioError, CapacityError
from antiphon.runtime.reply import Reply
from antiphon.runtime.scheduler import Job
from antiphon.runtime.session import Session

from . import audio_file
from .audio_file import Pcm
from .devices import Loudspeaker, Microphone, choose, load_sounddevice
from .exchange import configure, note, report
from .keys import END, keyboard

PLAYBACK_S = 5  # room between the voice and the loudspeaker
IDLE_S = 0.002
SWITCH_S = 0.001  # python's default, 5 ms, starves the callbacks when several threads are busy
TOGGLE, QUIT = set("\r\n "), {"q", END}
IDLE = "Enter: talk, q: quit"


def run(args: argparse.Namespace) -> int:
    """Talk until q, Ctrl-D or Ctrl-C."""
    sd = load_sounddevice()
    bundle = Bundle.open(args.bundle)
    heard_hz = bundle.manifest.encoder.sample_rate_hz
    spoken_hz = bundle.manifest.vocoder.sample_rate_hz
    source = choose(sd, "input", args.input, heard_hz)
    sink = choose(sd, "output", args.output, spoken_hz)
    recorder = None if args.save is None else Recorder(args.save, heard_hz, spoken_hz)
    playback = AudioRing(spoken_hz * PLAYBACK_S)
    session = Session(bundle, configure(args, bundle.manifest, spoken=True), playback=playback)
    sys.setswitchinterval(SWITCH_S)
    with (
        keyboard() as keys,
        Microphone(sd, source, heard_hz) as microphone,
        Loudspeaker(sd, sink, playback, spoken_hz) as loudspeaker,
    ):
        note(f"{source.name} at {source.rate_hz} Hz, {sink.name} at {sink.rate_hz} Hz")
        talk = Talk(session, microphone, loudspeaker, recorder)
        talk.run(keys)
    return 0


class Recorder:
    """Keeps both sides of every exchange as wav files, beside older ones."""

    def __init__(self, folder: Path, heard_hz: int, spoken_hz: int) -> None:
        self._folder, self._heard_hz, self._spoken_hz = folder, heard_hz, spoken_hz
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise AudioError(f"{folder}: cannot be made: {error.strerror}") from error
        audio_file.check_output(folder / "turn.wav")
        self._next = 1

    def save(self, question: Pcm, reply: Reply) -> None:
        """Write one exchange."""
        while (path := self._path("question")).exists():
            self._next += 1
        audio_file.write(path, question, self._heard_hz)
        audio_file.write(self._path("reply"), reply.pcm, self._spoken_hz)

    def _path(self, side: str) -> Path:
        return self._folder / f"turn-{self._next:03}-{side}.wav"


class Talk:
    """The loop between keyboard, microphone, session and loudspeaker."""

    def __init__(
        self,
        session: Session,
        microphone: Microphone,
        loudspeaker: Loudspeaker,
        recorder: Recorder | None = None,
    ) -> None:
        self._session, self._recorder = session, recorder
        self._microphone, self._loudspeaker = microphone, loudspeaker
        self.listening = False
        self._question: list[Pcm] = []
        self._reply: Reply | None = None  # being made or played
        self._last: Reply | None = None  # the latest that began, finished or not
        self._first = 0  # index of the reply's first sample

    def run(self, keys: Callable[[], str]) -> None:
        """Until `keys` returns one that means the end."""
        say(IDLE)
        while not QUIT & (pressed := set(keys())):
            if self.step(toggled=bool(TOGGLE & pressed)) is Job.WAIT:
                time.sleep(IDLE_S)

    def step(self, *, toggled: bool = False) -> Job:
        """Hand over what was heard, do one job, play what came of it."""
        block = self._microphone.read()
        if self.listening and len(block):
            self._session.listen(block)
            if self._recorder:
                self._question.append(block)
        if toggled:
            self._toggle()
        try:
            job = self._session.step()
        except CapacityError as error:  # the session has dropped the turn
            self.listening, job = False, Job.WAIT
            say(f"{error}; {IDLE}")
        self._follow()
        self._loudspeaker.pump()
        return job

    def _toggle(self) -> None:
        self.listening = not self.listening
        if self.listening:
            self._interrupt()
            self._question = []
            say("listening (Enter: done)")
        else:
            self._session.end_turn()
            say("thinking (Enter: never mind)")

    def _interrupt(self) -> None:
        """Stop a reply, or a question that is still being understood."""
        self._session.cancel(max(0, self._loudspeaker.played - self._first))
        self._loudspeaker.stop()
        if self._reply is not None:
            self._finish(self._reply)

    def _follow(self) -> None:
        """Notice that a reply has begun, or has been played to its end."""
        reply = self._session.reply
        if reply is None:
            return
        if reply is not self._last:
            self._reply = self._last = reply
            self._first = self._loudspeaker.written
        self._loudspeaker.expecting = bool(reply.chunks) and not reply.finished
        if reply is self._reply and reply.finished and not self._loudspeaker.playing:
            self._finish(reply)
            say(IDLE)

    def _finish(self, reply: Reply) -> None:
        self._reply = None
        self._loudspeaker.expecting = False
        report(reply)
        lost, gaps = self._microphone.overruns, self._loudspeaker.underruns
        if lost or gaps:
            note(f"{lost} overruns of the microphone, {gaps} underruns of the loudspeaker so far")
        if self._recorder and self._question:
            self._recorder.save(np.concatenate(self._question), reply)


def say(text: str) -> None:
    """What happens now, for the person at the keyboard."""
    print(f"-- {text}", file=sys.stderr)
