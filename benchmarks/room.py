"""Microphone and loudspeaker without devices, on a clock that only sound and work advance.

Every 10 ms of this clock bring one block of the microphone and take one for the loudspeaker. A job
advances the clock by the time it took, waiting costs nothing: a conversation runs as fast as the
machine can, and is as late as it would be in real time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_event import Event, Kind
from antiphon.runtime.scheduler import Job

Pcm = NDArray[np.float32]

BLOCK_S = 0.01
MIC_BLOCK, SPEAKER_BLOCK = 160, 240  # samples of it at 16 and 24 kHz


@dataclass(frozen=True, slots=True)
class Noted:
    """An event, and the clock when it was told."""

    event: Event
    at_s: float


class Room:
    """One conversation; `speak` may be called again and again."""

    def __init__(
        self,
        talk: DuplexSession,
        *,
        cost: Callable[[Job | None], float] | None = None,
        echo_db: float | None = None,
    ) -> None:
        """Furnish the room.

        cost     seconds that a job (None: hearing a block) takes here; by default the processor
                 time that it took
        echo_db  of the reply in the microphone, 40 ms later; the voice detector's side is taken
                 to be freed of it
        """
        self.talk = talk
        self.now_s = 0.0
        self.noted: list[Noted] = []
        self._cost = cost
        self._echo = 0.0 if echo_db is None else 10 ** (echo_db / 20)
        self._played: list[Pcm] = []
        self._blocks = 0

    @property
    def clock_s(self) -> float:
        """The clock at the last block of the microphone."""
        return self._blocks * BLOCK_S

    @property
    def played(self) -> Pcm:
        """What the loudspeaker has played since the start [S] at 24 kHz."""
        return np.concatenate([np.zeros(0, np.float32), *self._played])

    def speak(self, pcm: Pcm) -> None:
        """Say pcm [S] at 16 kHz into the microphone, the last block filled with zeros."""
        padded = np.pad(pcm, (0, -len(pcm) % MIC_BLOCK)).astype(np.float32)
        for block in padded.reshape(-1, MIC_BLOCK):
            self._tick(block)

    def wait(self, *kinds: Kind, limit_s: float = 20.0) -> Noted | None:
        """Be silent until one of these happens; None if it does not in time."""
        first, end = len(self.noted), self._blocks + round(limit_s / BLOCK_S)
        while self._blocks < end:
            self._tick(np.zeros(MIC_BLOCK, np.float32))
            for noted in self.noted[first:]:
                if noted.event.kind in kinds:
                    return noted
            first = len(self.noted)
        return None

    def _tick(self, block: Pcm) -> None:
        """Ten milliseconds: jobs until the block is there, then the block."""
        self._blocks += 1
        due_s = self._blocks * BLOCK_S
        while self.now_s < due_s:
            if self._work(self.talk.step) is Job.WAIT:
                self.now_s = due_s
        out = np.empty(SPEAKER_BLOCK, np.float32)
        self.talk.playback.read(out)
        self._played.append(out)
        raw = block + self._echo * self._echo_now()
        self._work(lambda: self.talk.hear(block, raw))

    def _work(self, act: Callable[[], Job | None]) -> Job | None:
        if self._cost is None:
            before = time.thread_time()
            job = act()
            self.now_s += time.thread_time() - before
        else:
            job = act()
            self.now_s += self._cost(job)
        self.noted += [Noted(event, self.now_s) for event in self.talk.events()]
        return job

    def _echo_now(self) -> Pcm:
        """The block played 40 ms ago, at the microphone's rate; crude, but it is an echo."""
        if not self._echo or len(self._played) < 5:
            return np.zeros(MIC_BLOCK, np.float32)
        at = np.arange(MIC_BLOCK) * SPEAKER_BLOCK / MIC_BLOCK
        return np.interp(at, np.arange(SPEAKER_BLOCK), self._played[-5]).astype(np.float32)
