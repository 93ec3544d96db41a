"""Questions for nano, and how it answers them from the file: what a conversation is measured by."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.resample import resample
from antiphon.runtime.session import Session
from nano.domain import MEANINGS
from nano.judges import GrammarJudge, normalise
from nano.train.corpus import load_index, read, stop

Pcm = NDArray[np.float32]

RATE_HZ = 16_000
EDGE_S = 0.4  # at either end, into which no pause is put


@dataclass(frozen=True, slots=True)
class Question:
    """A recording [S] at 16 kHz, and the right answer, normalised."""

    text: str
    pcm: Pcm
    answer: str


def load(bundle: Path, work: Path, count: int) -> list[Question]:
    """Questions in voices never trained on, evenly spread; without them, those of the bundle."""
    answers = {m.id: m.reply for m in MEANINGS}
    found = [u for u in load_index(work, "eval") if u.meaning in answers]
    if found:
        order = np.random.default_rng(0).permutation(len(found))[:count]
        chosen = [found[i] for i in order]
        return [Question(u.text, read(u, RATE_HZ), normalise(answers[u.meaning])) for u in chosen]
    folder = bundle / "questions"
    index = json.loads((folder / "questions.json").read_text())
    recorded = [
        Question(
            q["text"],
            soundfile.read(folder / f"{name}.flac", dtype="float32")[0],
            normalise(q["reply"]),
        )
        for name, q in index.items()
    ]
    return (recorded * -(-count // len(recorded)))[:count]


def trimmed(pcm: Pcm) -> Pcm:
    """Without the silence before and after."""
    loud = np.flatnonzero(np.abs(pcm) > 0.02 * np.abs(pcm).max(initial=1e-9))
    return pcm[loud[0] : loud[-1] + 1] if len(loud) else pcm


def with_pause(pcm: Pcm, seconds: float) -> Pcm:
    """The question with a pause where it is quietest, away from its ends."""
    edge = round(EDGE_S * RATE_HZ)
    high = len(pcm) - edge if len(pcm) > 3 * edge else edge
    return stop(pcm, edge, high, round(seconds * RATE_HZ))


class Judge:
    """Which of nano's answers is it?"""

    def __init__(self) -> None:
        self._judge = GrammarJudge()

    def hear(self, pcm: Pcm, rate_hz: int) -> str:
        """The answer in pcm [S], normalised; "" when it is none."""
        if not len(pcm) or not pcm.any():
            return ""
        return self._judge.hear(trimmed(resample(pcm, rate_hz, RATE_HZ)))


class FromFile:
    """Asks as `antiphon reply` does: each question the first of a conversation."""

    def __init__(self, bundle: Path, judge: Judge) -> None:
        self._session, self._judge = Session(Bundle.open(bundle)), judge

    def right(
        self, question: Question, pcm: Pcm | None = None, device_hz: int | None = None
    ) -> bool:
        """Whether the answer is the right one.

        pcm        the question as it is really asked
        device_hz  the rate of a device through which both question and answer go
        """
        asked = question.pcm if pcm is None else pcm
        self._session.reset()
        self._session.listen(_through(asked, RATE_HZ, device_hz))
        said = self._session.run_reply().pcm
        rate_hz = self._session.manifest.vocoder.sample_rate_hz
        return self._judge.hear(_through(said, rate_hz, device_hz), rate_hz) == question.answer


def _through(pcm: Pcm, rate_hz: int, device_hz: int | None) -> Pcm:
    """What a device of that rate leaves of it."""
    if device_hz is None or device_hz >= rate_hz:
        return pcm
    return resample(resample(pcm, rate_hz, device_hz), device_hz, rate_hz)
