"""What an evaluation found, and the numbers drawn from it: for JSON, for a page, for a manifest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.manifest import EngineEntry

from .dialogues import SPEECH, WRITTEN, Dialogue
from .heads import Interval, RowScore, interval
from .shadow import EngineError
from .sound import Opinion

HEADS = (SPEECH, WRITTEN)
_STEP = ("trunk", "speech_branch")  # read whole for every row of a spoken reply
_DIGITS = 4  # of a number in the digest


@dataclass(frozen=True, slots=True)
class Subject:
    """One of the two bundles, in plain values."""

    name: str
    weights: str
    target: str
    nbytes: int
    step_bytes: int  # of weights, read for each row of a spoken reply
    schemes: dict[str, str]  # by engine
    engine_bytes: dict[str, int]

    @classmethod
    def of(cls, bundle: Bundle) -> Subject:
        """The facts of a bundle's manifest."""
        m = bundle.manifest
        sizes = {name: engine_bytes(entry) for name, entry in m.engines.items()}
        return cls(
            name=m.name,
            weights=m.weights,
            target=m.target,
            nbytes=sum(entry.size_bytes for entry in m.files),
            step_bytes=sum(sizes[name] for name in _STEP),
            schemes={name: entry.scheme for name, entry in m.engines.items()},
            engine_bytes=sizes,
        )


def engine_bytes(entry: EngineEntry) -> int:
    """Graph and weights."""
    return entry.file.size_bytes + sum(data.size_bytes for data in entry.data)


@dataclass(frozen=True, slots=True)
class Scored:
    """A row of a reply."""

    head: str
    score: RowScore
    last: bool  # the one with which the reference ended the reply


@dataclass(slots=True)
class Exchange:
    """One question, put to both."""

    dialogue: Dialogue  # with the reference's reply
    rows: list[Scored]  # of it, one for each row drawn
    answer: Dialogue  # with the candidate's own reply
    mel_distance_db: float | None = None  # of the two voices saying the reference's codes
    opinion: Opinion | None = None  # of the reference's voice
    opinion_measured: Opinion | None = None

    @property
    def same_reply(self) -> bool:
        """Whether the candidate's own reply is the reference's, row for row."""
        a, b = (d.rows[d.first : d.stop] for d in (self.dialogue, self.answer))
        return bool(np.array_equal(a, b))


@dataclass(slots=True)
class Report:
    """An evaluation. Without a reference the bundle is its own, and nothing is compared."""

    bundle: Subject
    reference: Subject | None
    questions: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    codes: list[list[float]] = field(default_factory=list)  # by recording: 1 where codes agree
    engines: dict[str, EngineError] = field(default_factory=dict)
    listener: bool = False  # whether there was one

    def values(self, head: str, of: Callable[[RowScore], float]) -> list[list[float]]:
        """One number for each row of a head, by dialogue."""
        return [[float(of(r.score)) for r in e.rows if r.head == head] for e in self.exchanges]

    def head(self, head: str) -> dict[str, Any]:
        """Agreement and KL of one head over its rows."""
        kl = self.values(head, lambda row: row.kl)
        flat = np.concatenate([[], *kl])
        if not len(flat):
            return {"rows": 0}
        return {
            "rows": len(flat),
            "agreement": _plain(interval(self.values(head, lambda row: row.same))),
            "kl": _plain(interval(kl)),
            "kl_median": float(np.median(flat)),
            "kl_p99": float(np.percentile(flat, 99)),
        }

    def replies(self, head: str) -> dict[str, Any]:
        """How replies of one kind end, the reference's first in each pair."""
        mine = [e for e in self.exchanges if e.dialogue.answered == head]
        if not mine:
            return {"replies": 0}
        rows = [r for e in mine for r in e.rows if r.head == head]
        ended, before = [r for r in rows if r.last], [r for r in rows if not r.last]
        pairs = [(e.dialogue, e.answer) for e in mine]
        return {
            "replies": len(mine),
            "unfinished": [sum(not d[i].complete for d in pairs) for i in (0, 1)],
            "rows": [_mean(d[i].stop - d[i].first for d in pairs) for i in (0, 1)],
            "end_at_the_end": _ends(ended),
            "end_before": _ends(before),
            "same_reply": _mean(e.same_reply for e in mine),
        }

    @property
    def voice(self) -> dict[str, Any]:
        """Distance of the two voices, and mean opinions of each."""
        apart = [e.mel_distance_db for e in self.exchanges if e.mel_distance_db is not None]
        found = {
            "replies": sum(e.dialogue.answered == SPEECH for e in self.exchanges),
            "mel_distance_db": _plain(interval([[value] for value in apart])),
        }
        both = [
            [o for e in self.exchanges if (o := getattr(e, name)) is not None]
            for name in ("opinion", "opinion_measured")
        ]
        if not self.listener or not all(both):
            return found | {"opinion": None}
        kinds = ("signal", "background", "overall")
        return found | {
            "opinion": {k: [_mean(getattr(o, k) for o in side) for side in both] for k in kinds}
        }

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain values, for JSON."""
        found: dict[str, Any] = {
            "bundle": asdict(self.bundle),
            "reference": asdict(self.reference) if self.reference else None,
            "questions": self.questions,
            "dialogues": len(self.exchanges),
            "replies": {head: self.replies(head) for head in HEADS},
            "voice": self.voice,
            "exchanges": [_exchange(e) for e in self.exchanges],
        }
        if self.reference is None:
            return found
        return found | {
            "heads": {head: self.head(head) for head in HEADS},
            "codes": _plain(interval(self.codes)),
            "engines": {n: _engine(e) for n, e in self.engines.items() if e.calls},
        }

    def digest(self) -> dict[str, str | int | float]:
        """The few numbers that a manifest keeps; none without a reference."""
        if self.reference is None:
            return {}
        found: dict[str, Any] = {"against": self.reference.weights, "questions": self.questions}
        for head in HEADS:
            measures, ends = self.head(head), self.replies(head)
            if measures["rows"]:
                found |= {f"{head}_{k}": measures[k]["mean"] for k in ("agreement", "kl")}
            if ends["replies"]:
                found[f"{head}_unfinished"] = ends["unfinished"][1] / ends["replies"]
        codes, apart = interval(self.codes), self.voice["mel_distance_db"]
        found |= {"codes_agreement": codes.mean} if codes else {}
        found |= {"mel_distance_db": apart["mean"]} if apart else {}
        return {k: _short(v) for k, v in found.items()}


def _exchange(e: Exchange) -> dict[str, Any]:
    """One line of the JSON's list."""
    scores = [row.score for row in e.rows]
    return {
        "question": e.dialogue.question,
        "asked": e.dialogue.asked,
        "answered": e.dialogue.answered,
        "rows": [e.dialogue.stop - e.dialogue.first, e.answer.stop - e.answer.first],
        "complete": [e.dialogue.complete, e.answer.complete],
        "same_reply": e.same_reply,
        "agreement": _mean(s.same for s in scores),
        "kl": _mean(s.kl for s in scores),
        "end_at_the_end": _ends([row for row in e.rows if row.last]),
        "mel_distance_db": e.mel_distance_db,
        "opinion": [asdict(o) if o else None for o in (e.opinion, e.opinion_measured)],
    }


def _engine(error: EngineError) -> dict[str, Any]:
    if error.codes:
        return {"calls": error.calls, "agreement": error.agreement}
    return {
        "calls": error.calls,
        "sqnr_db": error.sqnr_db,
        "cosine": error.cosine,
        "max_abs_error": error.largest,
    }


def _ends(rows: list[Scored]) -> list[float | None]:
    """Mean probability of ending: reference, candidate."""
    return [_mean(r.score.end for r in rows), _mean(r.score.end_measured for r in rows)]


def _mean(values: Iterable[float]) -> float | None:
    found = list(values)
    return float(np.mean(found)) if found else None


def _plain(found: Interval | None) -> dict[str, float] | None:
    return asdict(found) if found else None


def _short(value: str | int | float) -> str | int | float:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
