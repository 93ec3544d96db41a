"""Real speech for tests: questions recorded for the bundled model."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import soundfile

from antiphon.runtime.resample import resample

RATE_HZ = 16_000
FOLDER = Path(__file__).parents[1] / "nano" / "bundle" / "questions"


@cache
def question(name: str = "number_after_twelve") -> np.ndarray:
    """The recording [S] at 16 kHz from the first to the last loud sample."""
    pcm, rate = soundfile.read(FOLDER / f"{name}.flac", dtype="float32")
    pcm = resample(pcm, rate, RATE_HZ)
    loud = np.flatnonzero(np.convolve(np.abs(pcm), np.full(160, 1 / 160), "same") > 0.006)
    spoken = pcm[loud[0] : loud[-1] + 1]
    spoken.flags.writeable = False
    return spoken


def silence(ms: float) -> np.ndarray:
    """Nothing, not even noise [S]."""
    return np.zeros(round(ms * RATE_HZ / 1000), np.float32)
