"""Dialogues for calibration: questions put to a bundle, and what it answered, as grid rows.

No sound is made: encoder, language model and sampler are all it takes. The rows hold whatever a
conversation holds: system turns, spoken and written questions, spoken and written replies.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.encoder import SpeechEncoder
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.lm import LanguageModel
from antiphon.runtime.metrics import TurnMetrics
from antiphon.runtime.prompt import Grid, PromptBuilder
from antiphon.runtime.reply import Reply
from antiphon.runtime.sampling import Sampler
from antiphon.runtime.text import TextStream, TextTokenizer
from antiphon.runtime.thinker import CLOSING_ROWS, Thinker

Pcm = NDArray[np.float32]  # [S] in ±1, at the encoder's rate

TURNS = 3  # at most, of one dialogue
REPLY_ROWS = 256  # at most: 20 s of speech
_FRAME_ROWS = 16  # of the template around a question, amply


class Interview:
    """Puts questions to the model of one bundle; the same seed gives the same dialogues."""

    def __init__(
        self,
        bundle: Bundle,
        recordings: Sequence[Pcm],
        texts: Sequence[str] = (),
        *,
        seed: int = 0,
        threads: int = 1,
    ) -> None:
        """Load the engines that dialogues take. Raises ConfigError where there is no question."""
        if not len(recordings) + len(texts):
            raise ConfigError("no question to calibrate with; give recordings or written ones")
        self._facts, self._rng = bundle.manifest, np.random.default_rng(seed)
        self._text = TextTokenizer(bundle.tokenizer_path)
        self._prompt = PromptBuilder(self._facts.tokens, self._text.encode, self._text.encode_plain)
        self._encoder = SpeechEncoder(bundle, threads=threads)
        self._lm = LanguageModel(bundle, threads=threads)
        self._recordings, self._texts = recordings, texts

    def dialogues(self, count: int) -> Iterator[Grid]:
        """Rows [T, 2] of so many dialogues, each of one to three turns.

        Replies are spoken in every other dialogue, and questions take turns where there are both
        kinds; every question is asked once before any is asked again.
        """
        kinds = cycle(
            ([self._endless(map(self._recorded, self._recordings))] if self._recordings else [])
            + ([self._endless(map(self._written, self._texts))] if self._texts else [])
        )
        prompts = self._facts.prompts
        for index in range(count):
            spoken = index % 2 == 0
            self._lm.reset()
            self._lm.prefill(self._prompt.system(prompts.spoken if spoken else prompts.text))
            for turn in range(int(self._rng.integers(1, TURNS + 1))):
                question = next(next(kinds))
                if turn and len(question) + REPLY_ROWS > self._lm.free:
                    break
                self._lm.prefill(self._fitting(question))
                self._answer(spoken)
            yield self._lm.history.rows.copy()

    def _written(self, text: str) -> Grid:
        return self._prompt.text_turn("user", text)

    def _recorded(self, recording: Pcm) -> Grid:
        codes = self._encoder.push(recording)
        codes = np.concatenate((codes, self._encoder.finish()))
        return self._prompt.speech_turn("user", codes)

    def _endless(self, turns: Iterable[Grid]) -> Iterator[Grid]:
        """User turns, in another order each time round."""
        made = list(turns)
        while True:
            yield from (made[i] for i in self._rng.permutation(len(made)))

    def _fitting(self, question: Grid) -> Grid:
        """The question, its middle left out where it takes more than half of the context."""
        most = max(2 * _FRAME_ROWS, self._lm.free // 2)
        if len(question) <= most:
            return question
        return np.concatenate((question[: most - _FRAME_ROWS], question[-_FRAME_ROWS:]))

    def _answer(self, spoken: bool) -> None:
        """Let the model reply; the rows of its turn join the conversation, whole."""
        lm, sampling = self._lm, self._facts.sampling
        lm.prefill(self._prompt.assistant_prefix(spoken))
        room = min(sampling.max_new_tokens, REPLY_ROWS, lm.free - CLOSING_ROWS - 2)
        limited = replace(sampling, max_new_tokens=max(1, room))
        sampler = Sampler(limited, self._facts.tokens, self._rng)
        thinker = Thinker(lm, self._prompt, sampler, self._facts.tokens)
        reply = Reply(spoken, TurnMetrics(lambda: 0.0), TextStream(self._text))
        while not thinker.done:
            thinker.step(reply, None)
