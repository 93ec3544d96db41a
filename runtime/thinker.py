"""The rows of one reply: drawn one by one, ended, closed by the template, or cut (contract C).

A spoken reply ends at its end-of-speech row; the rows the model would add after it are the same as
those that close the turn, so they are not drawn (contract C.2, after step 7).
"""

from __future__ import annotations

import numpy as np

from .history import TEXT
from .lm import LanguageModel
from .manifest import SpecialTokens
from .prompt import PromptBuilder
from .reply import Ending, Reply
from .sampling import Mode, Row, Sampler, initial_mode, next_mode

CLOSING_ROWS = 3  # that any reply may still need: end of speech, end of turn, newline


class Thinker:
    """Answers the conversation as it stands in `lm`, whose last rows are the assistant's prefix."""

    def __init__(
        self, lm: LanguageModel, prompt: PromptBuilder, sampler: Sampler, tokens: SpecialTokens
    ) -> None:
        self._lm, self._prompt, self._sampler, self._tokens = lm, prompt, sampler, tokens
        self._start = lm.length
        self._mode = initial_mode(lm.history.rows[-1], tokens)
        self._spoken = self._mode is Mode.AUDIO
        self.done = False  # the turn is closed

    def step(self, reply: Reply, most_codes: int | None) -> int | None:
        """Draw one row and run it, the last one together with the rows that close the turn.

        most_codes  that the voice can take; None without a voice
        Returns the speech code drawn, if any; the reply grows by it.
        """
        assert not self.done
        row, mode = self._draw(), self._mode
        code = row[1] if mode is Mode.AUDIO and row[1] != self._tokens.eosp else None
        after = next_mode(mode, row, self._tokens)
        made = len(reply.codes) + (code is not None)
        ending, rows = self._ending(row, after, made == most_codes), np.array([row])
        if ending is not None:
            rest = self._prompt.reply_rest(row, after is Mode.AUDIO)
            rows = np.concatenate([rows, rest])
        self._lm.prefill(rows)  # first: if it fails, the reply has not grown
        self._mode = after
        if code is not None:
            reply.codes.append(code)
        elif mode is Mode.TEXT and row[TEXT] not in self._tokens.stops:
            reply.text += reply.stream.push(row[TEXT])
        if ending is not None:
            self.done = True
            reply.end(ending)
        return code

    def cut(self, reply: Reply, codes: int, *, seen: bool = True) -> None:
        """End the reply here; of a spoken one the history keeps the first `codes` codes.

        A reply of which nothing is left, or that nobody was shown, never happened: its prefix
        goes too.
        """
        inside = self._spoken or self._mode is Mode.AUDIO
        if self._spoken or not seen:
            kept = codes if seen else 0
            self._lm.rewind(max(0, self._lm.length - self._start - kept))
            reply.heard_codes = kept
        if self._lm.length == self._start:
            self._lm.rewind(len(self._prompt.assistant_prefix(self._spoken)))
        else:
            self._lm.prefill(self._prompt.reply_rest(self._lm.history.rows[-1], inside))
        self.done = True
        reply.end(Ending.CANCELLED)

    def _draw(self) -> Row:
        lm, sampler = self._lm, self._sampler
        generated = lm.length - self._start + 1
        if self._mode is Mode.AUDIO:
            return sampler.speech_row(lm.speech_logits(), lm.history, generated)
        return sampler.text_row(lm.text_logits(), lm.history, generated)

    def _ending(self, row: Row, after: Mode, voice_full: bool) -> Ending | None:
        """Whether and why the reply ends with `row`, not yet run; `after` is the mode behind it."""
        if row[TEXT] in self._tokens.stops or (self._spoken and after is Mode.TEXT):
            return Ending.COMPLETE
        self._lm.make_room(CLOSING_ROWS + 2)  # this row, another one, and what closes the turn
        full = voice_full or self._lm.free < CLOSING_ROWS + 2
        generated = self._lm.length - self._start + 1
        return Ending.TRUNCATED if full or self._sampler.stops(row, generated) else None
