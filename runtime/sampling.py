"""Draw the next grid row from the logits of the two channels (contract C).

Deliberate differences from the published code, none of which changes a spoken reply's choice:
- in text mode the modality pad cannot be drawn: such a row would be embedded as speech;
- in text mode the audio channel gets its pad instead of a sample, so that the speech branch can
  sleep. The sample is never heard or embedded; it would only enter the audio history;
- in audio mode no text id is drawn, as it is thrown away. The random stream therefore differs.

`min_new_tokens` counts as upstream does, once for each channel: speech may first end with row
`min_new_tokens`, text with the row after it (contract C.2 steps 2 and 4). All other quirks are
decided in `antiphon.export.quirks`.
"""

from __future__ import annotations

from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import BundleError
from .history import AUDIO, TEXT, History
from .manifest import SamplingConfig, SpecialTokens

Logits = NDArray[np.float32]
Row = tuple[int, int]  # text id, audio id


class Mode(Enum):
    """Which channel speaks."""

    TEXT = "text"
    AUDIO = "audio"


def initial_mode(last: ArrayLike, tokens: SpecialTokens) -> Mode:
    """Mode after a prompt whose last row is `last` [2] (contract C.1)."""
    text, audio = np.asarray(last)
    inside_speech = text == tokens.modality_pad and audio != tokens.audio_pad
    return next_mode(Mode.AUDIO if inside_speech else Mode.TEXT, last, tokens)


def next_mode(mode: Mode, last: ArrayLike, tokens: SpecialTokens) -> Mode:
    """Mode of the row that follows `last` [2]; both tests in this order (contract C.1)."""
    text, audio = np.asarray(last)
    if mode is Mode.TEXT and text == tokens.sosp:
        mode = Mode.AUDIO
    if mode is Mode.AUDIO and audio == tokens.eosp:
        mode = Mode.TEXT
    return mode


class Sampler:
    """Draws rows of one reply after the other. `generated` counts the row drawn, from 1."""

    def __init__(
        self, config: SamplingConfig, tokens: SpecialTokens, rng: np.random.Generator
    ) -> None:
        self.config = config
        self._tokens = tokens
        self._rng = rng

    def speech_row(self, logits: Logits, history: History, generated: int) -> Row:
        """A row in audio mode from audio logits [V] or [1, V]."""
        scores = self._scores(logits, history.seen(AUDIO))
        scores[self._tokens.eosp + 1 :] = -np.inf
        if generated < self.config.min_new_tokens:
            scores[self._tokens.eosp] = -np.inf
        return (self._tokens.modality_pad, self._draw(scores))

    def text_row(self, logits: Logits, history: History, generated: int) -> Row:
        """A row in text mode from text logits [V] or [1, V]."""
        scores = self._scores(logits, history.seen(TEXT))
        scores[self._tokens.modality_pad] = -np.inf
        if generated <= self.config.min_new_tokens:  # stock processors count the rows before it
            scores[list(self._tokens.stops)] = -np.inf
        return (self._draw(scores), self._tokens.audio_pad)

    def stops(self, row: ArrayLike, generated: int) -> bool:
        """Whether a reply ends with `row` [2]; only text ids and the row budget end it."""
        text = int(np.asarray(row)[TEXT])
        return text in self._tokens.stops or generated >= self.config.max_new_tokens

    def _scores(self, logits: Logits, seen: NDArray[np.bool_]) -> Logits:
        """A copy of the logits with the repetition penalty applied (contract C.2 step 3)."""
        scores = np.array(logits, np.float32).reshape(-1)
        penalty = np.float32(self.config.repetition_penalty)
        if penalty != 1:
            seen = seen[: len(scores)]  # the audio pad may lie behind the vocabulary
            old = scores[seen]
            scores[seen] = np.where(old < 0, old * penalty, old / penalty)
        return scores

    def _draw(self, scores: Logits) -> int:
        """One id (contract C.2 step 5). Greedy: the lowest of the best ones.

        Raises BundleError when the model gives no number to go by.
        """
        if not np.isfinite(best := scores.max()):
            raise BundleError(
                f"the model's best score is {best}; begin a new conversation, and if that does "
                "not help export the bundle again"
            )
        if not self.config.do_sample:
            return int(scores.argmax())
        ids, weights = nucleus(scores, self.config)
        edges = weights.cumsum()
        return int(ids[np.searchsorted(edges, self._rng.random() * edges[-1], side="right")])


def nucleus(
    scores: Logits, config: SamplingConfig
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The ids that may be drawn, best first, and their probabilities up to a common factor.

    Temperature; the `top_k` best, all that tie with the last of them; of these the best whose
    better ones together have less than `top_p`: the best one always stays.
    """
    scaled = scores / np.float32(config.temperature)  # in float32, where the ties are
    k = min(config.top_k, len(scaled))
    threshold = np.partition(scaled, -k)[-k]
    ids = np.flatnonzero((scaled >= threshold) & (scaled > -np.inf))
    ids = ids[np.argsort(-scaled[ids], kind="stable")]
    weights = np.exp(scaled[ids].astype(np.float64) - scaled[ids[0]])
    better = weights.cumsum() - weights
    kept = better < config.top_p * weights.sum()
    return ids[kept], weights[kept]
