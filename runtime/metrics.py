"""Where the time of a turn goes: counts, seconds per stage, waterfall up to the first sound."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

Clock = Callable[[], float]
"""Monotonic seconds; tests pass their own."""

WATERFALL = (
    "question_end",  # the last of the user's turn was handed over
    "prefilled",  # the model has read all of it
    "first_code",  # or the first text id of a written reply
    "first_mel",  # all Euler steps of the first chunk done; spoken replies only
    "first_sample",  # sound is there to be played; spoken replies only
    "reply_end",
)


@dataclass(slots=True)
class TurnMetrics:
    """One exchange: the user's turn and the reply to it."""

    clock: Clock = time.perf_counter
    moments: dict[str, float] = field(default_factory=dict)  # of WATERFALL -> clock reading
    seconds: dict[str, float] = field(default_factory=dict)  # per stage
    counts: dict[str, int] = field(default_factory=dict)  # jobs per stage
    heard_s: float = 0.0  # of user audio
    spoken_s: float = 0.0  # of reply audio

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time one call of a stage."""
        start = self.clock()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - start
            self.counts[name] = self.counts.get(name, 0) + 1

    def happened(self, moment: str, at: float | None = None) -> None:
        """Note a moment of the waterfall, now or at a clock reading; the first time counts."""
        assert moment in WATERFALL, moment
        self.moments.setdefault(moment, self.clock() if at is None else at)

    @property
    def waterfall_ms(self) -> dict[str, float]:
        """Milliseconds from the end of the question to each later moment that has come."""
        start = self.moments.get("question_end")
        if start is None:
            return {}
        return {m: 1000 * (self.moments[m] - start) for m in WATERFALL[1:] if m in self.moments}

    @property
    def rtf(self) -> float | None:
        """Processing time per second of audio heard and spoken; None without audio."""
        audio_s = self.heard_s + self.spoken_s
        return sum(self.seconds.values()) / audio_s if audio_s else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for one JSON line."""
        return {
            "waterfall_ms": self.waterfall_ms,
            "seconds": dict(self.seconds),
            "counts": dict(self.counts),
            "heard_s": self.heard_s,
            "spoken_s": self.spoken_s,
            "rtf": self.rtf,
        }
