"""What the tokenizer makes of silence: codes to put before, between and after spoken words.

People wait before they speak, stop in the middle of a sentence and let the microphone run on.
The recordings are trimmed, so the language model would never see that. Codes depend on what was
said before, so the silence is encoded behind real speech, in the noise of a random channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

from .corpus import Pcm, Rng, augment, load_index, read

Codes = NDArray[np.int64]
RATE_HZ, CODE_SAMPLES = 16000, 1280
RECORDINGS = 240
SILENT_CODES = 12  # of each recording, 0.96 s on either side
BEFORE, BETWEEN, AFTER = 0.4, 0.25, 0.4  # share of the questions with such a silence
LONGEST = {"before": 7, "between": SILENT_CODES, "after": 7}  # codes


@dataclass(frozen=True, slots=True)
class Silences:
    """Runs of codes [N, 12] heard before speech and after it."""

    before: Codes
    after: Codes

    def _run(self, place: str, rng: Rng) -> Codes:
        runs = self.before if place == "before" else self.after
        run = runs[int(rng.integers(len(runs)))]
        return run[: int(rng.integers(1, LONGEST[place] + 1))]

    def around(self, codes: Codes, rng: Rng) -> Codes:
        """The question as somebody in no hurry would say it."""
        parts = [codes]
        if rng.random() < BETWEEN and len(codes) > 8:
            cut = int(rng.integers(3, len(codes) - 3))
            parts = [codes[:cut], self._run("between", rng), codes[cut:]]
        if rng.random() < BEFORE:
            parts.insert(0, self._run("before", rng))
        if rng.random() < AFTER:
            parts.append(self._run("after", rng))
        return np.concatenate(parts)


def listen_to_silence(work: Path, tokenizer: SpeechTokenizer) -> Silences:
    """Encode `RECORDINGS` questions between silences of about a second (ten seconds of CPU)."""
    rng = np.random.default_rng(12)
    asked = load_index(work, "questions")
    picks = rng.choice(len(asked), min(RECORDINGS, len(asked)), replace=False)
    before, after = [], []
    for pick in picks:
        codes = _encode(tokenizer, _between_silences(read(asked[int(pick)], RATE_HZ), rng))
        before.append(codes[:SILENT_CODES])
        after.append(codes[-SILENT_CODES:])
    return Silences(np.stack(before), np.stack(after))


def _between_silences(pcm: Pcm, rng: Rng) -> Pcm:
    """The channel's noise goes on where nobody speaks: silence is added before it is applied."""
    quiet = np.zeros((SILENT_CODES + 1) * CODE_SAMPLES, np.float32)
    return augment(np.concatenate((quiet, pcm, quiet)), rng)


def _encode(tokenizer: SpeechTokenizer, pcm: Pcm) -> Codes:
    with torch.no_grad():
        codes: Codes = tokenizer.encode(torch.from_numpy(pcm)).numpy()
    return codes
