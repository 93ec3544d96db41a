"""Microphone and loudspeaker of a conversation, opened again when they go away.

Devices are opened and closed in a thread of their own; the conversation goes on meanwhile. A
stream that ended or fell silent is closed and the same device tried again, at once and then four
times a second; after a second the system's default is tried as well. PortAudio's list of devices
is frozen when it starts, so at last it is started again, when that interrupts nobody.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Self

from antiphon.runtime.errors import AudioDeviceError

from .device_thread import DeviceThread, give_up
from .devices import Port, Wanted, choose, quiet
from .loudspeaker import Loudspeaker
from .microphone import Microphone
from .streams import Capture, Playout, close

STALL_S = 1.0  # without a callback: the device is gone
RETRY_S = 0.25
OWN_TRIES = 4  # for the same device alone
RESTART_TRIES = 12  # PortAudio is started again every so many tries
GOODBYE_S = 2.0  # for closing the devices at the end

Opened = Capture | Playout
Connect = Callable[[Opened | None], None]


@dataclass(slots=True)
class Line:
    """One direction: the device it uses, or the attempt to get one."""

    wanted: Wanted
    device: Opened | None = None
    port: Port | None = None  # of the last device
    missed: bool = False  # the person was told that it is gone
    beats: int = 0
    beat_at: float = 0.0
    tries: int = 0
    next_try: float = 0.0
    attempt: Future[Opened] | None = None

    def alive(self, now: float) -> bool:
        """Whether sound still flows."""
        if self.device is None or not self.device.stream.active:
            return False
        if self.device.beats != self.beats:
            self.beats, self.beat_at = self.device.beats, now
        return now - self.beat_at < STALL_S

    def begin(self, device: Opened, now: float) -> None:
        """A device was opened."""
        self.device, self.port, self.tries, self.missed = device, device.port, 0, False
        self.beats, self.beat_at = -1, now

    def miss(self) -> list[str]:
        """The news that the device is gone, once."""
        missed, self.missed = self.missed, True
        name = "" if self.port is None else f" {self.port.name}"
        return [] if missed else [f"the {self.wanted.kind}{name} is gone; waiting for it"]

    def candidates(self) -> list[Wanted]:
        """What to try next: the device used so far, later also the default."""
        default = same = replace(self.wanted, name=None)
        if self.wanted.name is not None and self.port is not None:
            same = replace(self.wanted, name=self.port.name)
        return [same] if same == default or self.tries < OWN_TRIES else [same, default]


def describe(port: Port) -> str:
    """A device in use, for the person at the keyboard."""
    return f"{port.kind}: {port.name} at {port.rate_hz} Hz"


class SoundCard:
    """Opens both devices; `watch` it often. A context."""

    def __init__(
        self,
        heard: Wanted,
        spoken: Wanted | None,
        *,
        sd: Any,
        thread: DeviceThread,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """spoken: None where nothing is to be played; sd: the sounddevice module."""
        self.microphone = Microphone(heard.rate_hz)
        self.loudspeaker = Loudspeaker(spoken.rate_hz) if spoken else None
        self.changes = 0  # times that a device came or went
        self._lines = [Line(heard)] + ([Line(spoken)] if spoken else [])
        self._hearing = False
        self._sd, self._thread, self._clock = sd, thread, clock

    def check(self) -> None:
        """Look for the devices without opening them. Raises AudioDeviceError."""
        for line in self._lines:
            self._thread.call(partial(choose, self._sd, line.wanted))

    def __enter__(self) -> Self:
        """Open everything. Raises AudioDeviceError."""
        try:
            for line in self._lines:
                self._connect(line, self._thread.call(partial(self._open, line.wanted)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for line in self._lines:
            self._lose(line)
        try:
            self._thread.submit(lambda: None).result(GOODBYE_S)
        except TimeoutError:
            give_up()

    @property
    def ports(self) -> list[Port]:
        """The devices in use."""
        return [line.device.port for line in self._lines if line.device is not None]

    @property
    def playout(self) -> Playout | None:
        """The loudspeaker's stream, if it has one."""
        device = self._lines[-1].device
        return device if isinstance(device, Playout) else None

    @property
    def faults(self) -> dict[str, int]:
        """How often sound was lost so far, and where."""
        counts = {"overruns": self.microphone.overruns}
        if (speaker := self.loudspeaker) is not None:
            counts |= {"underruns": speaker.underruns, "dropouts": speaker.dropouts}
        return counts

    def watch(self, *, hearing: bool = False) -> list[str]:
        """Look after the devices; returns what has changed, for the person at the keyboard.

        hearing  somebody is speaking, or was a moment ago
        """
        now, news = self._clock(), []
        self._hearing = hearing
        for line in self._lines:
            if line.attempt is not None and line.attempt.done():
                news += self._arrived(line, line.attempt)
            elif line.attempt is None and not line.alive(now):
                if line.device is not None:
                    news += line.miss()
                    self._lose(line)
                if now >= line.next_try:
                    self._try(line, now)
        return news

    def _lose(self, line: Line) -> None:
        """Go on without this device."""
        if (device := line.device) is None:
            return
        line.device, self.changes = None, self.changes + 1
        if isinstance(device, Capture):
            self.microphone.connect(None)
        elif self.loudspeaker is not None:
            self.loudspeaker.connect(None)
        self._thread.submit(lambda: close(device.stream))

    def _try(self, line: Line, now: float) -> None:
        line.tries, line.next_try = line.tries + 1, now + RETRY_S
        candidates = line.candidates()
        idle = not self._busy and all(other.attempt is None for other in self._lines)
        if line.tries % RESTART_TRIES == 0 and idle:
            for other in self._lines:
                self._lose(other)
            self._thread.submit(self._restart)
        line.attempt = self._thread.submit(lambda: self._first(candidates))

    def _arrived(self, line: Line, attempt: Future[Opened]) -> list[str]:
        line.attempt = None
        try:
            device = attempt.result()
        except AudioDeviceError:
            return line.miss()
        known = line.port == device.port and not line.missed
        self._connect(line, device)
        return [] if known else [describe(device.port)]

    @property
    def _busy(self) -> bool:
        """Whether somebody is being heard, or is listening to something."""
        speaker, microphone = self.loudspeaker, self._lines[0].device
        playing = speaker is not None and self.playout is not None and speaker.playing
        return playing or (self._hearing and microphone is not None)

    def _connect(self, line: Line, device: Opened) -> None:
        line.begin(device, self._clock())
        self.changes += 1
        if isinstance(device, Capture):
            self.microphone.connect(device)
        elif self.loudspeaker is not None:
            self.loudspeaker.connect(device)

    # in the thread of the devices

    def _open(self, wanted: Wanted) -> Opened:
        port = choose(self._sd, wanted)
        if wanted.kind == "input":
            return Capture(self._sd, port)
        assert self.loudspeaker is not None
        return Playout(self._sd, port, self.loudspeaker.source(port.rate_hz))

    def _first(self, candidates: list[Wanted]) -> Opened:
        """The first that opens. Raises the last one's AudioDeviceError."""
        *others, last = candidates
        for wanted in others:
            try:
                return self._open(wanted)
            except AudioDeviceError:
                continue
        return self._open(last)

    def _restart(self) -> None:
        """Have PortAudio look for devices again; no stream is open."""
        with quiet():
            with suppress(self._sd.PortAudioError):  # the last start may have failed
                self._sd._terminate()
            self._sd._initialize()
