"""How much of the words survives the speech tokenizer.

The same small recognizer (`probe`) is trained three times on the same recordings and reads others,
whose sentences it has never seen: from the log-mel, from the encoder's frames before the codebook,
and from the codes' own rows of the codebook. Frames better than the log-mel: the encoder has
learned to hear. Codes worse than frames: what the codebook costs. Every figure, and the size of a
difference too, depends on the probe, its training and the number of recordings: compare results
of the same settings on the same recordings. Voices are the same on both sides, sentences are not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.errors import ConfigError

from .probe import Floats, Training, fits, spell, train
from .recording import Estimate, ratio
from .speech import Heard
from .spelling import Alphabet, edits, plain

CODES, FRAMES, LOG_MEL = "codes", "frames", "log-mel"
WAYS = (CODES, FRAMES, LOG_MEL)
HELD_OUT = 0.2  # of the sentences
LEAST = 40  # different sentences
CODES_PER_S = 12.5


@dataclass(frozen=True, slots=True)
class Reading:
    """What the probe made of one representation."""

    way: str
    letters: Estimate  # errors, as a share of the letters
    words: Estimate  # errors, as a share of the words
    read: tuple[str, ...]  # by held-out recording
    letter_errors: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Usage:
    """How the codes of all recordings are spread over the codebook."""

    counts: tuple[int, ...]  # of each code that occurs, the most frequent first
    codebook: int  # entries

    @property
    def bits(self) -> float:
        """Entropy of a code: what it can tell at most, were codes independent."""
        share = np.array(self.counts) / sum(self.counts)
        return float(-(share * np.log2(share)).sum())

    @property
    def bits_per_s(self) -> float:
        """The same for a second of speech."""
        return CODES_PER_S * self.bits


@dataclass(frozen=True, slots=True)
class TokenizerCheck:
    """The whole experiment."""

    trained_on: int  # recordings
    too_fast: int  # recordings left out of the training: more letters than steps to write them
    truth: tuple[str, ...]  # of the held-out recordings
    usage: Usage
    readings: tuple[Reading, ...]  # in the order of `WAYS`

    def cost(self, way: str, than: str) -> Estimate:
        """How many more letters `way` gets wrong than `than`, as a share; same recordings."""
        by = {reading.way: np.array(reading.letter_errors) for reading in self.readings}
        return ratio(by[way] - by[than], [len(text) for text in self.truth])

    def as_dict(self) -> dict[str, Any]:
        """Everything in plain values."""
        used = {"codebook": self.usage.codebook, "in_use": len(self.usage.counts)}
        return {
            "trained_on": self.trained_on,
            "too_fast": self.too_fast,
            "held_out": len(self.truth),
            "codes": used | {"bits": self.usage.bits, "bits_per_s": self.usage.bits_per_s},
            "readings": {
                r.way: {"letters": asdict(r.letters), "words": asdict(r.words)}
                for r in self.readings
            },
            "codebook_cost": asdict(self.cost(CODES, FRAMES)),
            "texts": [
                {"truth": truth} | dict(zip(WAYS, read, strict=True))
                for truth, *read in zip(self.truth, *(r.read for r in self.readings), strict=True)
            ],
        }


Note = Callable[[int, int], None]


def check(
    heard: Sequence[Heard],
    codebook: Floats,
    training: Training,
    note: Note = lambda done, total: None,
) -> TokenizerCheck:
    """Train and read three times; `note` hears of each step of the training.

    codebook  [V, d]  what codes stand for
    Raises ConfigError for fewer than `LEAST` different sentences.
    """
    check_texts([one.text for one in heard])
    truth = [plain(one.text) for one in heard]
    test = _held_out(truth)
    alphabet = Alphabet([text for text, t in zip(truth, test, strict=True) if not t])
    labels = [alphabet.encode(text) for text in truth]
    learned = [i for i, t in enumerate(test) if not t and fits(len(heard[i].codes), labels[i])]
    if not learned:
        raise ConfigError("no recording is slow enough for its text; do the texts belong to them?")
    asked = [i for i, t in enumerate(test) if t]
    readings = []
    for number, way in enumerate(WAYS):
        rows = [_rows(one, way, codebook) for one in heard]
        probe = train(
            [rows[i] for i in learned],
            [labels[i] for i in learned],
            len(alphabet),
            training,
            partial(_advance, note, number),
        )
        read = spell(probe, [rows[i] for i in asked], alphabet)
        readings.append(_reading(way, read, [truth[i] for i in asked]))
    return TokenizerCheck(
        trained_on=len(learned),
        too_fast=int((~test).sum()) - len(learned),
        truth=tuple(truth[i] for i in asked),
        usage=usage([one.codes for one in heard], len(codebook)),
        readings=tuple(readings),
    )


def _advance(note: Note, number: int, done: int, steps: int) -> None:
    """Of the training of probe `number`, so many steps are done."""
    note(number * steps + done, len(WAYS) * steps)


def usage(codes: Sequence[NDArray[np.int64]], codebook: int) -> Usage:
    """Count codes [n] of several recordings."""
    counts = np.unique(np.concatenate(codes), return_counts=True)[1]
    return Usage(tuple(sorted(map(int, counts), reverse=True)), codebook)


def check_texts(texts: Sequence[str]) -> None:
    """Raise ConfigError for fewer than `LEAST` different sentences, or one without words."""
    spelled = [plain(text) for text in texts]
    if len(set(spelled)) < LEAST or not all(spelled):
        raise ConfigError(
            f"{len(texts)} recordings with {len(set(spelled))} different texts, "
            f"{spelled.count('')} of them without words; the check needs {LEAST} sentences or "
            "more, to learn from some and to read the others"
        )


def _held_out(truth: Sequence[str]) -> NDArray[np.bool_]:
    """Which recordings are only read: all of some sentences, so that none is on both sides."""
    texts = sorted(set(truth))
    order = np.random.default_rng(0).permutation(len(texts))
    held = {texts[i] for i in order[: round(HELD_OUT * len(texts))]}
    return np.array([text in held for text in truth])


def _rows(heard: Heard, way: str, codebook: Floats) -> Floats:
    """What the probe sees [n, C]."""
    if way == CODES:
        return codebook[heard.codes]
    return heard.pooled if way == FRAMES else heard.log_mel


def _reading(way: str, read: Sequence[str], truth: Sequence[str]) -> Reading:
    pairs = list(zip(read, truth, strict=True))
    letters = [edits(a, b) for a, b in pairs]
    words = [edits(a.split(), b.split()) for a, b in pairs]
    return Reading(
        way=way,
        letters=ratio(letters, [len(b) for b in truth]),
        words=ratio(words, [len(b.split()) for b in truth]),
        read=tuple(read),
        letter_errors=tuple(letters),
    )
