"""Talk for a long time: no sound may be lost, no turn may be stuck, and memory may not grow.

    scripts/virtual_devices.sh python -m benchmarks.soak --minutes 30

`antiphon talk` with a small memory, so that the ring wraps often, is asked all questions in a
random order, then in another; some are asked with a pause, some over the answer to the one before,
and some coughs come in between. The first round, about a tenth of the time, is warm-up: every
question plainly, then the two longest as one, as the longest reply and the longest turn so far
decide how much of the caches of voice and encoder is in use. Memory is judged in runs of half an
hour or more. Exits with 1 unless everything held.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from . import machine
from . import virtual_sound as room
from .spoken_questions import Question, load, with_pause
from .talk_process import TalkProcess

CAPACITY_ROWS = 256  # 20 s
PATIENCE_S = 15.0  # for the end of an exchange
COUGH_S = 0.15
SETTLE_S = 0.3  # after an exchange, in which memory is given back
MOST_GROWTH_BYTES = 1 << 20
WARM_UP, EXCHANGE_S = 0.1, 5.0  # of the time, for questions that take so long with their answer
LEAST_MINUTES = 30.0  # long enough to judge memory
STYLES = ("plain", "plain", "pause", "cough", "interruption")


@dataclass
class Tally:
    """What is watched, after warm-up."""

    asked: int = 0
    stuck: list[str] = field(default_factory=list)
    rss_bytes: list[int] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)  # of the devices, at the end of warm-up


def ask(talk: TalkProcess, listener: room.Listener, question: Question, style: str) -> bool:
    """Ask in that style; False when no answer came."""
    rng = np.random.default_rng(len(question.pcm))
    pcm = with_pause(question.pcm, rng.uniform(0.3, 0.8)) if style == "pause" else question.pcm
    begun = time.time()
    room.say(pcm).wait()
    ended = time.time()
    if listener.first_sound(ended, PATIENCE_S) is None:
        return False
    if style == "interruption":
        return True  # the next question comes over this answer
    if style == "cough":
        cough = rng.standard_normal(round(COUGH_S * 16_000)).astype(np.float32)
        room.say(0.1 * cough).wait()
    listener.silence(ended, 0.8, PATIENCE_S)
    deadline = time.time() + PATIENCE_S
    while time.time() < deadline:
        if any(e["kind"] == "reply_ended" for e in talk.events(begun, last=3)):
            return True
        time.sleep(0.05)
    return False


def joined(questions: list[Question]) -> Question:
    """The two longest without a pause between them: hardly any turn will be longer."""
    first, second = sorted(questions, key=lambda q: len(q.pcm))[-2:]
    return Question(f"{first.text} {second.text}", np.concatenate([first.pcm, second.pcm]), "")


def soak(talk: TalkProcess, questions: list[Question], minutes: float) -> Tally:
    """Ask until the time is over."""
    tally, rng, start = Tally(), np.random.default_rng(0), time.monotonic()
    waiting, warm = [joined(questions), *questions], False
    with room.Listener() as listener, tqdm(total=round(60 * minutes), unit="s") as bar:
        while (now := time.monotonic() - start) < 60 * minutes and len(tally.stuck) < 5:
            bar.update(round(now) - bar.n)
            style = STYLES[int(rng.integers(len(STYLES)))] if warm else "plain"
            question = waiting.pop()
            if not ask(talk, listener, question, style):
                tally.stuck.append(f"{style}: {question.text}")
            tally.asked += 1
            if warm and style != "interruption":  # its answer is still being given
                time.sleep(SETTLE_S)
                tally.rss_bytes.append(talk.rss_bytes())
            elif not warm and not waiting:
                warm, tally.faults = True, latest(talk)["faults"]
            waiting = waiting or [questions[i] for i in rng.permutation(len(questions))]
            listener.forget()
    return tally


def latest(talk: TalkProcess) -> dict[str, Any]:
    """What was written about the last exchange."""
    return (talk.turns(last=1) or [{"faults": {}, "rows": 0}])[-1]


def verdict(talk: TalkProcess, tally: Tally, minutes: float) -> dict[str, Any]:
    """Plain numbers, and whether they are as they should be."""
    last = latest(talk)
    lost = {name: count - tally.faults.get(name, 0) for name, count in last["faults"].items()}
    rss = tally.rss_bytes or [talk.rss_bytes()]
    edge = max(1, len(rss) // 10)
    growth = int(np.median(rss[-edge:]) - np.median(rss[:edge]))
    wraps = last["rows"] / CAPACITY_ROWS
    judged = minutes >= LEAST_MINUTES
    grown = judged and growth > MOST_GROWTH_BYTES
    held = not tally.stuck and lost.get("underruns") == 0 and not grown and wraps > 2
    return {
        "exchanges": tally.asked,
        "stuck": tally.stuck,
        "lost_after_warm_up": lost,
        "rss_growth_bytes": growth,
        "rss_growth_judged": judged,
        "rss_bytes": rss[-1],
        "ring_wraps": round(wraps, 1),
        "held": held,
    }


def main() -> None:
    """Soak, print what was found, exit with 1 if something did not hold."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--bundle", type=Path, default=Path("nano/bundle"))
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--json", type=Path, help="write the result there")
    args = parser.parse_args()
    room.check()
    count = max(2, round(args.minutes * 60 * WARM_UP / EXCHANGE_S))
    questions = load(args.bundle, args.work.expanduser(), count)
    with TalkProcess(args.bundle, ["--capacity-rows", str(CAPACITY_ROWS)]) as talk:
        tally = soak(talk, questions, args.minutes)
        result = {"minutes": args.minutes} | verdict(talk, tally, args.minutes)
    print(json.dumps(result))
    if args.json:
        machine.save("soak", result, args.json)
    sys.exit(not result["held"])


if __name__ == "__main__":
    main()
