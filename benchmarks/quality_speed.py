"""How long bundles take for the same replies, in turns, by the clock of the processor."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antiphon.export.proof.dialogues import Question
from antiphon.runtime.session import Session
from nano.evaluate import on_cpu

from .machine import percentiles

WARM = 2  # questions that are not counted


@dataclass(slots=True)
class Times:
    """One bundle's, by question."""

    session: Session
    factors: list[float] = field(default_factory=list)  # seconds for one of question or reply
    step_ms: list[float] = field(default_factory=list)  # for one row of a spoken reply

    def ask(self, question: Question, *, counted: bool) -> None:
        """One exchange; engines have one thread, so that the processor's time is theirs."""
        assert question.pcm is not None
        self.session.reset()
        self.session.listen(question.pcm)
        self.session.run_reply()
        metrics = self.session.metrics
        if counted and metrics.spoken_s and metrics.rtf:
            self.factors.append(metrics.rtf)
            self.step_ms.append(1e3 * metrics.seconds["think"] / metrics.counts["think"])


def in_turns(out: Path, names: Sequence[str], questions: Sequence[Question]) -> dict[str, Any]:
    """Every question to every bundle before the next question; the first name is the yardstick."""
    times = {n: Times(Session(on_cpu(out / n), clock=time.process_time)) for n in names}
    for number, question in enumerate([*questions[:WARM], *questions]):
        for name in names:
            times[name].ask(question, counted=number >= WARM)
    base = times[names[0]]
    return {
        name: {
            "replies": len(t.factors),
            "real_time_factor": percentiles(t.factors, 4),
            "step_cpu_ms": percentiles(t.step_ms, 3),
            "times_as_fast": _ratio(base.factors, t.factors),
            "step_times_as_fast": _ratio(base.step_ms, t.step_ms),
        }
        for name, t in times.items()
    }


def _ratio(base: Sequence[float], mine: Sequence[float]) -> float:
    """Of medians."""
    return round(statistics.median(base) / statistics.median(mine), 3)
