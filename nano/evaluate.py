"""Ask nano the held-out questions, through the runtime, and have others judge the answers.

    python -m nano.evaluate nano/bundle [--checkpoint nano/checkpoint] [--limit N] [--no-whisper]

Voices and phrasings were never trained on. Spoken answers are judged by a closed grammar (which
answer?) and by Whisper base (word error rate); written ones letter by letter. With --checkpoint the
codes of the streaming encoder are compared with the reference's, which hears the whole question at
once and knows its loudest bin (contract D.4). With --against two bundles are compared question by
question.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from antiphon.export.checkpoint import load_reference
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.encoder import SpeechEncoder
from antiphon.runtime.resample import resample
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig

from .domain import FALLBACK_ID, FALLBACK_REPLY, MEANINGS
from .judges import GrammarJudge, WhisperJudge, normalise, word_errors
from .train.corpus import Utterance, development, load_index, read

REPLIES = {m.id: m.reply for m in MEANINGS} | {FALLBACK_ID: FALLBACK_REPLY}
FAMILIES = {m.id: m.family for m in MEANINGS} | {FALLBACK_ID: "fallback"}
Pcm = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Answer:
    """A spoken answer as the judges heard it."""

    question: str  # file of the recording
    family: str
    unseen: bool  # apart from the development third
    asked: str
    heard: str  # by the grammar
    right: bool
    errors: int  # words Whisper heard otherwise
    words: int


@dataclass
class Tally:
    """What the evaluation counts."""

    answers: list[Answer] = field(default_factory=list)
    written_right: list[bool] = field(default_factory=list)
    typed_right: list[bool] = field(default_factory=list)
    codes_equal: list[float] = field(default_factory=list)  # 1 or 0, per code


class Examiner:
    """Asks and judges."""

    def __init__(self, bundle: Bundle, work: Path | None) -> None:
        self.spoken = Session(bundle, SessionConfig(reply="speech"))
        self.written = Session(bundle, SessionConfig(reply="text"))
        self.encoder = SpeechEncoder(bundle)
        self.grammar = GrammarJudge()
        self.whisper = WhisperJudge(work) if work else None
        self.tally = Tally()

    def compare_codes(self, pcm: Pcm, offline: SpeechTokenizer) -> None:
        """Codes of the runtime, fed in blocks of 10 ms, against the reference's."""
        blocks = np.split(pcm, range(160, len(pcm), 160))
        heard = [self.encoder.push(block) for block in blocks] + [self.encoder.finish()]
        with torch.no_grad():
            exact = offline.encode(torch.from_numpy(pcm)).numpy()
        self.tally.codes_equal += (np.concatenate(heard) == exact).astype(float).tolist()

    def speak(self, question: Utterance, pcm: Pcm, *, unseen: bool) -> None:
        """Spoken question, spoken answer."""
        self.spoken.reset()
        self.spoken.listen(pcm)
        reply = self.spoken.run_reply()
        expected, answer = REPLIES[question.meaning], resample(reply.pcm, 24000, 16000)
        heard = self.grammar.hear(answer) if len(answer) else ""
        errors = words = 0
        if self.whisper:
            errors, words = word_errors(self.whisper.hear(answer), expected)
        self.tally.answers.append(
            Answer(
                question=question.path.name,
                family=FAMILIES[question.meaning],
                unseen=unseen,
                asked=question.text,
                heard=heard,
                right=heard == normalise(expected),
                errors=errors,
                words=words,
            )
        )

    def write(self, question: Utterance, pcm: Pcm) -> None:
        """Written answers, to the spoken question and to the same one typed."""
        expected, t = REPLIES[question.meaning], self.tally
        self.written.reset()
        self.written.listen(pcm)
        t.written_right.append(self.written.run_reply().text == expected)
        self.written.reset()
        self.written.say(question.text)
        t.typed_right.append(self.written.run_reply().text == expected)


def interval(right: list[bool]) -> dict[str, float]:
    """Share in percent with its 95 % bootstrap interval."""
    if not right:
        return {}
    rng = np.random.default_rng(0)
    means = rng.choice(np.array(right, float), (2000, len(right))).mean(1) * 100
    low, high = np.percentile(means, (2.5, 97.5))
    return {"percent": 100 * float(np.mean(right)), "low": float(low), "high": float(high)}


def word_error_rate(answers: list[Answer]) -> float | None:
    """Words heard wrong, in percent of the words of the replies; None where nobody listened."""
    words = sum(a.words for a in answers)
    return 100 * sum(a.errors for a in answers) / words if words else None


def summary(t: Tally) -> dict[str, Any]:
    """Plain numbers for JSON and for people."""
    families: dict[str, list[bool]] = defaultdict(list)
    for answer in t.answers:
        families[answer.family].append(answer.right)
    return {
        "questions": len(t.answers),
        "families_never_asked": sorted(set(FAMILIES.values()) - families.keys()),
        "exact": interval([a.right for a in t.answers]),
        "exact_apart_from_development": interval([a.right for a in t.answers if a.unseen]),
        "exact_by_family": {k: round(100 * float(np.mean(v)), 1) for k, v in families.items()},
        "whisper_wer_percent": word_error_rate(t.answers),
        "whisper_wer_percent_of_right_answers": word_error_rate([a for a in t.answers if a.right]),
        "speech_to_text_exact": interval(t.written_right),
        "text_to_text_exact": interval(t.typed_right),
        "codes_equal_percent": 100 * float(np.mean(t.codes_equal)) if t.codes_equal else None,
        "misses": [f"{a.asked} -> {a.heard or '(nothing)'}" for a in t.answers if not a.right],
        "right": {a.question: a.right for a in t.answers},
    }


def paired(mine: dict[str, bool], other: dict[str, bool]) -> dict[str, float]:
    """Mine minus the other's share of right answers in points, same questions, 95 % bootstrap."""
    shared = sorted(mine.keys() & other.keys())
    difference = np.array([float(mine[q]) - float(other[q]) for q in shared])
    means = np.random.default_rng(0).choice(difference, (10_000, len(shared))).mean(1) * 100
    low, high = np.percentile(means, (2.5, 97.5))
    points = 100 * float(difference.mean())
    return {"questions": len(shared), "points": points, "low": float(low), "high": float(high)}


def on_cpu(path: Path) -> Bundle:
    """The bundle, run on the CPU whatever it is made for.

    There ONNX Runtime decodes fp8 weights too: the same numbers in float32 products, only slow.
    """
    bundle = Bundle.open(path)
    return Bundle(path, replace(bundle.manifest, target="cpu"))


def examine(args: argparse.Namespace, job: int) -> Tally:
    """Every `args.jobs`-th question, from number `job` on."""
    work = args.work.expanduser()
    offline = load_reference(args.checkpoint).tokenizer if args.checkpoint else None
    examiner = Examiner(on_cpu(args.bundle), None if args.no_whisper else work)
    questions = load_index(work, args.set)[: args.limit][job :: args.jobs]
    looked_at = {u.path for u in development(load_index(work, "eval"))}
    torch.set_num_threads(1)
    for question in tqdm(questions, desc="questions", position=job):
        pcm = read(question, 16000)
        examiner.speak(question, pcm, unseen=question.path not in looked_at)
        examiner.write(question, pcm)
        if offline is not None:
            examiner.compare_codes(pcm, offline)
    return examiner.tally


def merged(tallies: list[Tally]) -> Tally:
    """All counts together; answers in the order of their questions."""
    found = Tally(
        written_right=[r for t in tallies for r in t.written_right],
        typed_right=[r for t in tallies for r in t.typed_right],
        codes_equal=[r for t in tallies for r in t.codes_equal],
    )
    found.answers = sorted((a for t in tallies for a in t.answers), key=lambda a: a.question)
    return found


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    parser.add_argument("--set", default="eval", help="eval, or human (see data/human.py)")
    parser.add_argument("--limit", type=int, default=10_000)
    parser.add_argument("--checkpoint", type=Path, help="compare codes with the reference")
    parser.add_argument("--no-whisper", action="store_true")
    parser.add_argument("--json", type=Path, help="write the result there")
    parser.add_argument("--against", type=Path, help="such a result of another bundle")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    args = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with context.Pool(args.jobs) as pool:
        tallies = pool.starmap(examine, [(args, job) for job in range(args.jobs)])
    result = summary(merged(tallies))
    if args.against:
        result["against"] = paired(result["right"], json.loads(args.against.read_text())["right"])
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({k: v for k, v in result.items() if k != "right"}, indent=1))


if __name__ == "__main__":
    main()
