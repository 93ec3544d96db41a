"""`antiphon talk`: speak, pause, and be answered; speak again, and the reply falls silent.

    microphone -> Cleaner -> DuplexSession -> Loudspeaker
         '------- raw -------^      '-- events --> Report (terminal), Recorder (files)

Two callbacks copy samples, one thread opens devices; all else happens in this one, job by job.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Set
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_config import DuplexConfig
from antiphon.runtime.duplex_event import Activity, Kind
from antiphon.runtime.scheduler import Job
from antiphon.runtime.turn_taking import TurnConfig

from . import devices
from .conversation_files import Recorder, check_unused, read_rows
from .device_thread import DeviceThread
from .devices import Wanted
from .echo import Cleaner, Reference
from .exchange import configure
from .keys import END, keyboard
from .sound_card import SoundCard
from .status_line import StatusLine, private_stderr
from .talk_report import Report

IDLE_S = 0.002
SWITCH_S = 0.001  # python's default, 5 ms, starves the callbacks when several threads are busy
TOGGLE, MUTE, QUIT = set("\r\n "), set("mM"), {"q", "Q", END}


def run(args: argparse.Namespace) -> int:
    """Talk until q, Ctrl-D or Ctrl-C."""
    if args.list_devices:
        return devices.show()
    sys.setswitchinterval(SWITCH_S)
    with ExitStack() as stack:
        stack.enter_context(private_stderr())
        parts = prepare(args)
        if (folder := args.save or args.resume) is not None:
            recorder = stack.enter_context(Recorder(folder, parts.duplex.session.manifest))
            parts = replace(parts, recorder=recorder)
        stack.enter_context(parts.card)
        keys = stack.enter_context(keyboard())
        Talk(parts, StatusLine()).run(keys)
    return 0


@dataclass(frozen=True, slots=True)
class Parts:
    """What a talk is made of."""

    duplex: DuplexSession
    card: SoundCard
    cleaner: Cleaner | None = None
    recorder: Recorder | None = None


def prepare(args: argparse.Namespace) -> Parts:
    """Load the model; the devices are looked for, not yet opened. What is cheap comes first."""
    thread = DeviceThread()
    sd = thread.call(devices.load_sounddevice)
    if args.save not in (None, args.resume):
        check_unused(args.save)
    saved = None if args.resume is None else read_rows(args.resume)
    bundle = Bundle.open(args.bundle)
    heard_hz = bundle.manifest.encoder.sample_rate_hz
    spoken_hz = bundle.manifest.vocoder.sample_rate_hz
    heard = Wanted("input", args.input, heard_hz, args.device_rate)
    spoken = Wanted("output", args.output, spoken_hz, args.device_rate)
    card = SoundCard(heard, None if args.text_reply else spoken, sd=sd, thread=thread)
    card.check()
    cleaner = None
    if not args.push_to_talk:  # then a key says who speaks
        cancel_echo = not (args.no_aec or args.text_reply)
        cleaner = Cleaner(heard_hz, spoken_hz, cancel_echo=cancel_echo)
    speaker = card.loudspeaker
    duplex = DuplexSession(
        bundle,
        duplex_config(args, bundle),
        playback=speaker,
        heard=None if speaker is None else (lambda: speaker.heard),
    )
    if saved is not None:
        duplex.session.restore(saved)
    return Parts(duplex, card, cleaner)


def duplex_config(args: argparse.Namespace, bundle: Bundle) -> DuplexConfig:
    """The options of turns, and those common to all conversations."""
    turns = TurnConfig()
    if args.endpoint_ms is not None:
        pause_ms = min(turns.pause_ms, args.endpoint_ms)
        turns = TurnConfig(endpoint_ms=args.endpoint_ms, pause_ms=pause_ms)
    return DuplexConfig(
        session=configure(args, bundle.manifest, spoken=not args.text_reply),
        turns=turns,
        speculate=not args.no_speculation,
        push_to_talk=args.push_to_talk,
    )


class Talk:
    """The loop between keyboard, devices and conversation."""

    def __init__(self, parts: Parts, line: StatusLine) -> None:
        self._duplex, self._card, self._cleaner = parts.duplex, parts.card, parts.cleaner
        self._recorder = parts.recorder
        self._report = Report(parts.duplex, parts.card, line)
        self._reference = Reference(parts.duplex.session.manifest.vocoder.sample_rate_hz)
        self._changes = -1  # of the devices, as last seen
        self.muted = False

    def run(self, keys: Callable[[], str]) -> None:
        """Until `keys` returns one that means the end."""
        self._report.begin()
        try:
            while not QUIT & (pressed := set(keys())):
                if self.step(pressed) is Job.WAIT:
                    time.sleep(IDLE_S)
            self._duplex.stop()
            self._follow()
        finally:
            self._report.end()

    def step(self, pressed: Set[str] = frozenset()) -> Job:
        """Hand over what was heard, do one job, have played what came of it."""
        self._press(pressed)
        self._look_after_devices()
        self._hear()
        job = self._duplex.step()
        self._follow()
        if (speaker := self._card.loudspeaker) is not None:
            reply = self._duplex.session.reply
            speaker.expecting = reply is not None and reply.begun and not reply.finished
            speaker.pump()
        self._report.show(muted=self.muted)
        return job

    def _press(self, pressed: Set[str]) -> None:
        if MUTE & pressed:
            self.muted = not self.muted
        if not TOGGLE & pressed:
            return
        if not self._duplex.config.push_to_talk:
            self._duplex.stop()
        elif self._duplex.activity is Activity.HEARING:
            self._duplex.release()
        else:
            self._duplex.press()

    def _look_after_devices(self) -> None:
        hearing = self._duplex.activity in (Activity.HEARING, Activity.INTERRUPTED)
        for news in self._card.watch(hearing=hearing):
            self._report.say(news)
        if self._card.changes != self._changes:
            self._changes = self._card.changes
            self._reference.connect(self._card.playout)
            if self._cleaner is not None:
                self._cleaner.reset()

    def _hear(self) -> None:
        blocks = self._card.microphone.blocks()
        for waiting, heard in zip(range(len(blocks) - 1, -1, -1), blocks, strict=True):
            near = np.zeros_like(heard) if self.muted else heard
            far = self._reference.take(waiting)
            clean = near if self._cleaner is None else self._cleaner.process(near, far)
            self._duplex.hear(clean, near)
            self._report.hear(near)
            if self._recorder is not None:
                self._recorder.hear(near, far)

    def _follow(self) -> None:
        """What has happened since, for the terminal and the files."""
        for event in self._duplex.events():
            self._report.tell(event)
            if self._recorder is not None:
                self._recorder.tell(event)
                if event.kind in (Kind.REPLY_ENDED, Kind.DROPPED):
                    session, faults = self._duplex.session, self._card.faults
                    self._recorder.keep(event, session.conversation, session.length, faults)
        self._report.transcribe()
