"""Texts as a recognizer writes them: letters without case and punctuation, and errors in them."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLANK = 0  # the symbol of connectionist temporal classification that stands for nothing


def plain(text: str) -> str:
    """Letters, digits and apostrophes inside words, in lower case, single spaces between words."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2019", "'")
    kept = "".join(c if c == "'" or unicodedata.category(c)[0] in "LNM" else " " for c in text)
    return " ".join(word for w in kept.split() if (word := w.strip("'")))


def edits(heard: Sequence[str], truth: Sequence[str]) -> int:
    """Least number of insertions, deletions and replacements between two sequences."""
    row = list(range(len(truth) + 1))
    for i, x in enumerate(heard, 1):
        corner, row[0] = row[0], i
        for j, y in enumerate(truth, 1):
            corner, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, corner + (x != y))
    return row[-1]


class Alphabet:
    """The letters of some texts, numbered from 1; 0 is the blank."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Of plain texts."""
        self._letters = sorted(set("".join(texts)))
        self._number = {letter: i for i, letter in enumerate(self._letters, 1)}

    def __len__(self) -> int:
        """Symbols, the blank included."""
        return len(self._letters) + 1

    def encode(self, text: str) -> NDArray[np.int64]:
        """Numbers of the letters; those never seen are left out."""
        return np.array([self._number[c] for c in text if c in self._number], np.int64)

    def decode(self, best: NDArray[np.int64]) -> str:
        """The text of the best symbol of each step [T]: repeats are one, blanks are none."""
        changed = np.concatenate((best[:1], best[1:][best[1:] != best[:-1]]))
        return " ".join("".join(self._letters[i - 1] for i in changed if i != BLANK).split())


def steps_needed(labels: NDArray[np.int64]) -> int:
    """How many steps it takes to write these letters: equal neighbours need a blank between."""
    return len(labels) + int((labels[1:] == labels[:-1]).sum())
