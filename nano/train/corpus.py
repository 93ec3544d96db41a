"""Reading the generated speech: `index.jsonl` files, waveforms, augmentation."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray

Pcm = NDArray[np.float32]
Rng = np.random.Generator


@dataclass(frozen=True, slots=True)
class Utterance:
    """One generated recording."""

    path: Path
    text: str
    meaning: str
    voice: str
    rate_hz: int
    samples: int


def load_index(work: Path, name: str) -> list[Utterance]:
    """Finished recordings of a set; [] when it was never made. A torn last line is skipped."""
    folder = work / "data" / name
    index = folder / "index.jsonl"
    if not index.exists():
        return []
    found = {}
    for line in index.read_text().splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["file"]] = Utterance(
            folder / row["file"], row["text"], row["meaning"], row["voice"], row["rate"],
            row["samples"],
        )  # fmt: skip
    return [u for u in found.values() if u.path.exists()]


def development(evaluation: list[Utterance]) -> list[Utterance]:
    """The third of the evaluation set that is looked at while training; reports keep it apart."""
    return evaluation[::3]


def read(utterance: Utterance, rate_hz: int) -> Pcm:
    """Waveform [S] at `rate_hz`."""
    from antiphon.runtime.resample import resample

    pcm, rate = soundfile.read(utterance.path, dtype="float32")
    return pcm if rate == rate_hz else resample(pcm, rate, rate_hz)


def stretch(pcm: Pcm, factor: float) -> Pcm:
    """Play faster (factor > 1): pitch and speed together."""
    at = np.arange(0, len(pcm) - 1, factor)
    return np.interp(at, np.arange(len(pcm)), pcm).astype(np.float32)


def reverberate(pcm: Pcm, rng: Rng, rate_hz: int = 16000) -> Pcm:
    """Convolve with a synthetic room: exponentially decaying noise, T60 of 0.1 to 0.5 s."""
    t60 = rng.uniform(0.1, 0.5)
    n = np.arange(int(t60 * rate_hz))
    tail = rng.standard_normal(len(n)) * 10 ** (-3 * n / len(n)) * rng.uniform(0.02, 0.15)
    tail[0] = 1.0
    size = 1 << int(np.ceil(np.log2(len(pcm) + len(tail))))
    wet = np.fft.irfft(np.fft.rfft(pcm, size) * np.fft.rfft(tail, size), size)[: len(pcm)]
    return wet.astype(np.float32)


def stop(pcm: Pcm, low: int, high: int, samples: int, rate_hz: int = 16000) -> Pcm:
    """Be silent for so many samples where it is quietest between `low` and `high`."""
    energy = np.convolve(np.square(pcm), np.ones(rate_hz // 50), "same")
    at = low + int(np.argmin(energy[low:high])) if high > low else low
    fade = np.linspace(1, 0, min(80, at), dtype=np.float32)
    ending = pcm[:at].copy()
    ending[len(ending) - len(fade) :] *= fade
    return np.concatenate([ending, np.zeros(samples, np.float32), pcm[at:]])


def pause(pcm: Pcm, rng: Rng, rate_hz: int = 16000) -> Pcm:
    """Stop for 0.15 to 1 s within 0.2 s of a random place."""
    reach = rate_hz // 5
    if len(pcm) < 4 * reach:
        return pcm
    place = int(rng.integers(2 * reach, len(pcm) - 2 * reach + 1))
    return stop(pcm, place - reach, place + reach, int(rng.uniform(0.15, 1.0) * rate_hz), rate_hz)


def augment(sound: Pcm, rng: Rng, other: Pcm | None = None) -> Pcm:
    """A random channel for a question at 16 kHz: speed, colour, room, babble, level, noise."""
    pcm: NDArray[np.floating] = stretch(sound, 2 ** rng.uniform(-0.19, 0.19))
    if rng.random() < 0.3:
        pcm = reverberate(pcm.astype(np.float32), rng)
    if rng.random() < 0.5:
        taps = rng.standard_normal(int(rng.integers(2, 9))) * 0.35
        taps[0] = 1.0
        pcm = np.convolve(pcm, taps)[: len(pcm)]
    if rng.random() < 0.1:  # telephone: drop everything above 4 kHz
        spectrum = np.fft.rfft(pcm)
        spectrum[len(spectrum) // 2 :] = 0
        pcm = np.fft.irfft(spectrum, len(pcm))
    rms = float(np.sqrt(np.mean(np.square(pcm)) + 1e-12))
    if other is not None and rng.random() < 0.15:
        babble = np.resize(other, len(pcm))
        level = rms * 10 ** (-rng.uniform(12, 25) / 20)
        pcm = pcm + babble * level / float(np.sqrt(np.mean(np.square(babble)) + 1e-12))
    target = 10 ** (rng.uniform(-35, -16) / 20)
    pcm = pcm * (target / max(rms, 1e-5))
    noise = rng.standard_normal(len(pcm)) * target * 10 ** (-rng.uniform(12, 60) / 20)
    lead = np.zeros(int(rng.integers(0, 2561)))
    noise = np.concatenate((rng.permutation(noise)[: len(lead)], noise))
    lead = np.zeros(len(noise) - len(pcm))
    return np.clip(np.concatenate((lead, pcm)) + noise, -1, 1).astype(np.float32)
