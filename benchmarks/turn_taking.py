"""Turn taking, measured without devices: what speculation saves, what pauses and noises do.

    python -m benchmarks.turn_taking [--bundle BUNDLE] [--work FOLDER] [--limit N] [--save]

Questions are the recorded ones of the bundle, or with --work those that nano is evaluated with.
Time is that of `room.py`: microphone sound plus the processor time of the jobs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from numpy.typing import NDArray

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_config import DuplexConfig
from antiphon.runtime.duplex_event import Event, Kind
from antiphon.runtime.reply import Reply
from antiphon.runtime.resample import resample
from antiphon.runtime.session import Session
from antiphon.runtime.turn_taking import TurnConfig
from nano.domain import FALLBACK_ID, FALLBACK_REPLY, MEANINGS
from nano.judges import GrammarJudge, normalise
from nano.train.corpus import load_index, read

from . import machine
from .room import Room

Pcm = NDArray[np.float32]

HEARD_HZ, SPOKEN_HZ = 16_000, 24_000
FLOOR = 10 ** (-45 / 20)  # what is louder counts as speech
PAUSES_MS = (300, 450, 600, 750, 900)
ENDPOINTS_MS = (900.0, 500.0)
MHM_MS, COUGH_MS = 350, 250


@dataclass(frozen=True, slots=True)
class Question:
    """A recording from the first to the last loud sample, and what a right answer says."""

    pcm: Pcm
    reply: str


def questions(bundle: Path, work: Path | None, limit: int) -> list[Question]:
    """The recorded questions of the bundle, again and again, or those of the evaluation."""
    if work is not None:
        replies = {m.id: m.reply for m in MEANINGS} | {FALLBACK_ID: FALLBACK_REPLY}
        found = load_index(work, "eval")[:limit]
        return [Question(trimmed(read(u, HEARD_HZ)), replies[u.meaning]) for u in found]
    index = json.loads((bundle / "questions" / "questions.json").read_text())
    names = [name for name, _ in zip(cycle(index), range(limit), strict=False)]
    return [
        Question(trimmed(load(bundle / "questions" / f"{n}.flac")), index[n]["reply"])
        for n in names
    ]


def load(path: Path) -> Pcm:
    """A recording [S] at the model's rate."""
    pcm, rate = soundfile.read(path, dtype="float32")
    return resample(pcm, rate, HEARD_HZ)


def trimmed(pcm: Pcm) -> Pcm:
    """Without what is silent before and behind."""
    loud = np.flatnonzero(np.convolve(np.abs(pcm), np.full(160, 1 / 160), "same") > FLOOR)
    return np.ascontiguousarray(pcm[loud[0] : loud[-1] + 1])


def silence(ms: float) -> Pcm:
    """Nothing, not even noise [S]."""
    return np.zeros(round(ms * HEARD_HZ / 1000), np.float32)


def with_pause(pcm: Pcm, ms: float) -> Pcm:
    """The question, interrupted at its quietest 60 ms between a third and three quarters."""
    power = np.convolve(pcm**2, np.ones(960), "same")
    low, high = len(pcm) // 3, 3 * len(pcm) // 4
    cut = low + int(np.argmin(power[low:high]))
    return np.concatenate([pcm[:cut], silence(ms), pcm[cut:]])


class Bench:
    """One bundle, its questions, and a judge of spoken answers."""

    def __init__(self, bundle: Bundle, asked: list[Question]) -> None:
        self.bundle, self.asked = bundle, asked
        self._judge = GrammarJudge()

    def room(self, *, endpoint_ms: float = 900.0, speculate: bool = True) -> Room:
        """A new conversation, half a second old."""
        turns = TurnConfig(endpoint_ms=endpoint_ms)
        config = DuplexConfig(turns=turns, speculate=speculate)
        room = Room(DuplexSession(self.bundle, config))
        room.speak(silence(500))
        return room

    def right(self, reply: Reply | None, question: Question) -> bool:
        """Whether the reply answers the question."""
        if reply is None or not reply.codes:
            return False
        heard = self._judge.hear(resample(reply.pcm, SPOKEN_HZ, HEARD_HZ))
        return heard == normalise(question.reply)


def ask(room: Room, pcm: Pcm) -> tuple[list[Event], Reply | None]:
    """Ask, and wait for the end of the reply: what happened, and the reply."""
    first = len(room.noted)
    room.speak(pcm)
    ended = room.wait(Kind.REPLY_ENDED, Kind.DROPPED)
    room.speak(silence(500))
    return [n.event for n in room.noted[first:]], ended.event.reply if ended else None


def files(bench: Bench) -> dict[str, Any]:
    """The same questions straight into a session: how many are answered right."""
    session, right = Session(bench.bundle), 0
    for question in bench.asked:
        session.reset()
        session.listen(question.pcm)
        right += bench.right(session.run_reply(), question)
    return {"right": right}


def latency(bench: Bench) -> dict[str, Any]:
    """End of speech to first sample with and without speculation, question by question."""
    rooms = {name: bench.room(speculate=name == "on") for name in ("on", "off")}
    found: dict[str, list[float]] = {"on": [], "off": []}
    for question in bench.asked:
        for name, room in rooms.items():
            room.talk.session.reset()
            room.speak(question.pcm)
            end_s = room.clock_s
            began = room.wait(Kind.REPLY_BEGAN)
            if began is not None:
                found[name].append(1000 * (began.at_s - end_s))
            room.wait(Kind.REPLY_ENDED)
            room.speak(silence(500))
    saved = np.array(found["off"]) - np.array(found["on"])
    return {name: quantiles(ms) for name, ms in found.items()} | {"saved": quantiles(saved)}


def pauses(bench: Bench) -> dict[str, Any]:
    """Questions with a pause in the middle: how many are cut, and how many answered right."""
    rows: dict[str, Any] = {}
    for endpoint_ms in ENDPOINTS_MS:
        room = bench.room(endpoint_ms=endpoint_ms)
        for name, lengths_ms in (("no pause", (0,)), ("300-900 ms", PAUSES_MS)):
            cut = right = 0
            for question, ms in zip(bench.asked, cycle(lengths_ms), strict=False):
                room.talk.session.reset()
                events, reply = ask(room, with_pause(question.pcm, ms))
                cut += sum(e.kind is Kind.ENDPOINT for e in events) > 1
                right += bench.right(reply, question)
            rows[f"endpoint {endpoint_ms:.0f} ms, {name}"] = {"cut": cut, "right": right}
    return rows


def interruptions(bench: Bench) -> dict[str, Any]:
    """Another question at a random moment of the reply."""
    rng = np.random.default_rng(7)
    room, silent_ms, right, taken = bench.room(), [], 0, 0
    for first, second in pairs(bench.asked):
        room.talk.session.reset()
        room.speak(first.pcm)
        room.wait(Kind.REPLY_BEGAN)
        room.speak(silence(rng.uniform(300, 1200)))
        start_s, index = room.clock_s, len(room.noted)
        events, reply = ask(room, second.pcm)
        held = [n for n in room.noted[index:] if n.event.kind is Kind.INTERRUPTION]
        taken += any(e.kind is Kind.BARGE_IN for e in events)
        silent_ms += [1000 * (n.at_s - start_s) for n in held[:1]]
        right += bench.right(reply, second)
    return {"taken": taken, "right": right, "silent": quantiles(silent_ms)}


def noises(bench: Bench) -> dict[str, Any]:
    """A cough and an "mhm" during the reply: it has to be heard whole."""
    rows = {}
    for name, noise in (("cough", cough()), ("mhm", mhm())):
        room, whole, held = bench.room(), 0, 0
        for question in bench.asked:
            room.talk.session.reset()
            room.speak(question.pcm)
            room.wait(Kind.REPLY_BEGAN)
            room.speak(silence(400))
            events, reply = ask(room, noise)
            held += any(e.kind is Kind.INTERRUPTION for e in events)
            whole += reply is not None and reply.heard_codes is None
        rows[name] = {"held": held, "whole": whole}
    return rows


def cough() -> Pcm:
    """A burst of noise that dies away."""
    samples = HEARD_HZ * COUGH_MS // 1000
    burst = np.random.default_rng(1).standard_normal(samples) * np.exp(-np.arange(samples) / 900)
    return (0.3 * burst).astype(np.float32)


def mhm() -> Pcm:
    """A hum of two syllables, the second one higher."""
    t = np.arange(HEARD_HZ * MHM_MS // 1000) / HEARD_HZ
    pitch_hz = np.where(t < t[-1] / 2, 120.0, 150.0)
    phase = 2 * np.pi * np.cumsum(pitch_hz) / HEARD_HZ
    tone = sum(np.sin(k * phase) / k**2 for k in range(1, 6))
    envelope = np.abs(np.sin(2 * np.pi * t / t[-1])) ** 0.5
    hum: Pcm = (0.15 * tone * envelope).astype(np.float32)
    return hum


def pairs(asked: list[Question]) -> Iterator[tuple[Question, Question]]:
    """Each question, and the next one."""
    return zip(asked, asked[1:] + asked[:1], strict=True)


def quantiles(values: Any) -> dict[str, float]:
    """Median, 95th percentile and worst."""
    points = np.percentile(values, (50, 95, 100)).round(1).tolist() if len(values) else []
    return dict(zip(("p50", "p95", "max"), points, strict=False)) | {"n": len(values)}


CASES: dict[str, Callable[[Bench], dict[str, Any]]] = {
    "files": files,
    "latency_ms": latency,
    "pauses": pauses,
    "interruptions": interruptions,
    "noises": noises,
}


def main() -> None:
    """Run the cases and print one JSON line each."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--bundle", type=Path, default=Path("nano/bundle"))
    parser.add_argument("--work", type=Path)
    parser.add_argument("--limit", type=int, default=24)
    parser.add_argument("--case", choices=CASES, action="append")
    parser.add_argument("--save", action="store_true", help="write results/turn_taking.json")
    args = parser.parse_args()
    bench = Bench(Bundle.open(args.bundle), questions(args.bundle, args.work, args.limit))
    results: dict[str, Any] = {"questions": len(bench.asked)}
    for name in args.case or CASES:
        results[name] = CASES[name](bench)
        print(json.dumps({name: results[name]}), flush=True)
    if args.save:
        machine.save("turn_taking", results)


if __name__ == "__main__":
    main()
