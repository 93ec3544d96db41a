"""The cases of `benchmarks.conversation`: functions from a setting to what was counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import virtual_sound as room
from .machine import percentiles
from .spoken_questions import FromFile, Judge, Question, with_pause
from .talk_process import TalkProcess

Pcm = NDArray[np.float32]

PATIENCE_S = 8.0  # for the first sound of an answer
SILENCE_S = 0.9  # after which an answer is over
BREATH_S = 0.5  # between an answer and the next question
SPEECH_DB, NOISE_DB = -26.0, -41.0  # 15 dB apart
ECHO_DB, ECHO_MS = -10.0, 40
PAUSES_S = (0.3, 0.9)
INTERRUPTED_AFTER_S = (0.1, 0.9)
STOP_MS = 150  # within which an interrupted loudspeaker must be silent
OVER_REPLY = {"interruption", "barge_in", "false_interruption"}


@dataclass(frozen=True, slots=True)
class Setting:
    """What every case is given."""

    bundle: Path
    listener: room.Listener
    judge: Judge
    questions: Sequence[Question]


@dataclass(frozen=True, slots=True)
class Asked:
    """A question, and what was heard of the answer; readings of the clock."""

    question: Question
    begun: float  # when the question was begun
    ended: float  # when it was over
    first: float | None  # first sound of an answer
    answer: str  # what the judge heard

    @property
    def right(self) -> bool:
        """Whether it is the right answer."""
        return self.answer == self.question.answer


def ask(setting: Setting, question: Question, pcm: Pcm | None = None) -> Asked:
    """Ask and hear the answer to its end."""
    begun = time.time()
    room.say(question.pcm if pcm is None else pcm).wait()
    return hear_answer(setting, question, begun, time.time())


def hear_answer(setting: Setting, question: Question, begun: float, ended: float) -> Asked:
    """The answer that comes after `ended`."""
    first, answer = setting.listener.first_sound(ended, PATIENCE_S), ""
    if first is not None:
        last = setting.listener.silence(first, SILENCE_S)
        sound = setting.listener.between(first - 0.1, last + 0.2)
        answer = setting.judge.hear(sound, room.RATE_HZ)
    time.sleep(BREATH_S)
    return Asked(question, begun, ended, first, answer)


def summary(asked: Sequence[Asked], talk: TalkProcess) -> dict[str, Any]:
    """What all cases count."""
    wrong = [f"{a.question.text} -> {a.answer or '(nothing)'}" for a in asked if not a.right]
    turns = talk.turns()
    return {
        "questions": len(asked),
        "right": len(asked) - len(wrong),
        "right_percent": round(100 * (1 - len(wrong) / len(asked)), 1),
        "wrong": wrong,
        "faults": turns[-1]["faults"] if turns else {},
    }


def questions_in_turn(
    setting: Setting,
    options: Sequence[str] = (),
    around: AbstractContextManager[None] | None = None,
) -> dict[str, Any]:
    """All questions, one after the other; what happens beside them is `around`."""
    with TalkProcess(setting.bundle, options) as talk, around or nullcontext():
        asked = [ask(setting, question) for question in setting.questions]
        return summary(asked, talk)


def levelled(setting: Setting) -> Setting:
    """The same questions, all as loud."""
    loud = []
    for question in setting.questions:
        gain = 10 ** (SPEECH_DB / 20) / np.sqrt(np.mean(np.square(question.pcm)))
        loud.append(replace(question, pcm=np.clip(question.pcm * gain, -1, 1)))
    return replace(setting, questions=loud)


def noisy(setting: Setting) -> dict[str, Any]:
    """Pink noise, 15 dB below the voice."""
    return questions_in_turn(levelled(setting), around=room.noise(NOISE_DB))


def echoing(setting: Setting) -> dict[str, Any]:
    """The microphone hears the loudspeaker; nobody else speaks during an answer."""
    with TalkProcess(setting.bundle) as talk, room.echo(ECHO_DB, ECHO_MS):
        asked = [ask(setting, question) for question in setting.questions]
        own = [e["kind"] for e in talk.events() if e["kind"] in OVER_REPLY]
        return summary(asked, talk) | {"self_interruptions": {k: own.count(k) for k in set(own)}}


def at_rate(setting: Setting, rate_hz: int) -> dict[str, Any]:
    """Devices of another rate; with 8 kHz the judge, too, hears less than it should."""
    by_file = FromFile(setting.bundle, setting.judge)
    right = sum(by_file.right(question, device_hz=rate_hz) for question in setting.questions)
    found = questions_in_turn(setting, ["--device-rate", f"{rate_hz}"])
    return found | {"right_from_file_at_this_rate": right}


def pausing(setting: Setting) -> dict[str, Any]:
    """A pause of 300 to 900 ms in the middle of every question."""
    rng, by_file = np.random.default_rng(1), FromFile(setting.bundle, setting.judge)
    with TalkProcess(setting.bundle) as talk:
        asked, cut, from_file = [], 0, 0
        for question in setting.questions:
            pcm = with_pause(question.pcm, rng.uniform(*PAUSES_S))
            from_file += by_file.right(question, pcm)
            asked.append(ask(setting, question, pcm))
            a = asked[-1]
            early = np.abs(setting.listener.between(a.begun, a.ended)) > room.AUDIBLE
            cut += bool(early.any()) or _answers(talk, a.begun) != 1
        counted = {"cut": cut, "right_from_file_with_pause": from_file}
        return summary(asked, talk) | counted


def _answers(talk: TalkProcess, since: float) -> int:
    """Replies since then of which something was heard."""
    lines = [t for t in talk.turns() if t["events"] and t["events"][-1]["clock"] > since]
    return sum(line.get("heard_codes", 0) != 0 for line in lines)


def interrupting(setting: Setting) -> dict[str, Any]:
    """Another question over the answer to the first; the second is the one to be answered."""
    rng, asked, stops, missed = np.random.default_rng(2), [], [], 0
    with TalkProcess(setting.bundle) as talk:
        for first, second in zip(setting.questions, reversed(setting.questions), strict=True):
            room.say(first.pcm).wait()
            if setting.listener.first_sound(time.time(), PATIENCE_S) is None:
                missed += 1
                continue
            time.sleep(rng.uniform(*INTERRUPTED_AFTER_S))
            begun = time.time()
            room.say(second.pcm).wait()
            asked.append(hear_answer(setting, second, begun, time.time()))
            stops += _stop_ms(setting, talk, begun)
        quick = [stop <= STOP_MS for stop in stops]
        found = {
            "interruptions": len(stops),
            "stop_ms": percentiles(stops) if stops else {},
            "stopped_in_time_percent": round(100 * float(np.mean(quick)), 1) if quick else None,
            "answers_that_never_began": missed,
        }
        return summary(asked, talk) | found


def _stop_ms(setting: Setting, talk: TalkProcess, since: float) -> list[float]:
    """From the detection of somebody speaking over the answer to the last sound of it."""
    for event in talk.events(since):
        if event["kind"] == "interruption":
            at = event["clock"]
            sound = np.abs(setting.listener.between(at, at + 0.6)) > room.AUDIBLE
            loud = np.flatnonzero(sound)
            return [1000 * float(loud[-1]) / room.RATE_HZ if len(loud) else 0.0]
    return []


def unplugging(setting: Setting) -> dict[str, Any]:
    """Devices end, and the default moves, while the question is asked and while it is answered."""
    asked = []
    with TalkProcess(setting.bundle) as talk:
        pid, sinks = talk.process.pid, ("vspk2", "vspk")
        for number, question in enumerate(setting.questions):
            kind = ("sink-input", "source-output", "default")[number % 3]
            begun, player = time.time(), room.say(question.pcm)
            if number % 2:
                time.sleep(0.5 * len(question.pcm) / 16_000)
                _disturb(kind, pid, sinks[number // 3 % 2])
                player.wait()
            else:
                player.wait()
                setting.listener.first_sound(time.time(), PATIENCE_S)
                _disturb(kind, pid, sinks[number // 3 % 2])
            asked.append(hear_answer(setting, question, begun, time.time()))
        return summary(asked, talk)


def _disturb(kind: str, pid: int, sink: str) -> None:
    if kind == "default":
        room.pactl("set-default-sink", sink)
    else:
        room.unplug(kind, pid)


def speculating(
    setting: Setting, around: AbstractContextManager[None] | None = None
) -> dict[str, Any]:
    """Question by question in turn: with the reply prepared at the pause, and without."""
    talks = {
        "with": TalkProcess(setting.bundle),
        "without": TalkProcess(setting.bundle, ["--no-speculation"]),
    }
    waits: dict[str, list[float]] = {name: [] for name in talks}
    with (
        talks["with"],
        talks["without"],
        room.Recording(room.MICROPHONE) as microphone,
        around or nullcontext(),
    ):
        talks["without"].press("m")
        for question in setting.questions:
            for name in talks:
                begun = time.time()
                asked = ask(setting, question)
                spoken = np.abs(microphone.between(begun, asked.ended)) > room.AUDIBLE
                if asked.first is not None and spoken.any():
                    ended = begun + float(np.flatnonzero(spoken)[-1]) / room.RATE_HZ
                    waits[name].append(1000 * (asked.first - ended))
                for other in talks.values():
                    other.press("m")
    return {
        "first_sound_after_question_ms": {n: percentiles(w) for n, w in waits.items()},
        "shorter_ms_p50": round(float(np.median(waits["without"]) - np.median(waits["with"])), 1),
    }


CASES: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "plain": questions_in_turn,
    "interruptions": interrupting,
    "echo": echoing,
    "noise": noisy,
    "pauses": pausing,
    "devices": unplugging,
    "8kHz": lambda setting: at_rate(setting, 8_000),
    "48kHz": lambda setting: at_rate(setting, 48_000),
    "load": lambda setting: questions_in_turn(setting, around=room.busy(2)),
    "speculation": speculating,
    "speculation under load": lambda setting: speculating(setting, room.busy(2)),
}
