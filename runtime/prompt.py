"""Grid rows of a conversation, exactly as the model was trained on them (contract B.2, B.3).

A row is (text id, audio id). Text rows hold the audio pad, spoken rows the modality pad. The
pieces of a turn are tokenized separately, each as the same string as in training.

What we do about the quirks of the official code (contract B.2, C.6):
- the system turn comes first, where the caller puts it; none is ever appended at the end;
- nothing is stripped from the content, and no thinking block or start-of-text is added;
- a spoken reply is fed back as the codes that were generated, not as re-encoded sound;
- a reply is closed with the rows of the template even where the model stopped by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .errors import ConfigError
from .manifest import SpecialTokens

Grid = NDArray[np.int64]  # rows [n, 2]
Encode = Callable[[str], Sequence[int]]
Role = Literal["system", "user", "assistant"]

START, END, SPEECH = "<|im_start|>", "<|im_end|>", "<|object_ref_start|>"
SPOKEN_PROMPT = (
    "You are a helpful voice assistant. Answer the user's questions with spoken responses."
)
TEXT_PROMPT = "You are a helpful assistant. Answer the user's questions with text."


class PromptBuilder:
    """Makes grid rows. The templates are ours, the content of a turn is anybody's."""

    def __init__(
        self, tokens: SpecialTokens, encode: Encode, encode_content: Encode | None = None
    ) -> None:
        """Check that `encode` knows the special tokens. Raises ConfigError if not.

        encode          text of templates to ids, special tokens in it to their own ids
        encode_content  text of turns to ids; it must give no special id for any text, or whoever
                        writes it can end turns and begin others. Without it, `encode`: for
                        content that is as much ours as the templates
        """
        self._tokens = tokens
        self._encode, self._encode_content = encode, encode_content or encode
        expected = {START: tokens.im_start, END: tokens.im_end, SPEECH: tokens.sosp}
        for text, token in expected.items():
            if list(encode(text)) != [token]:
                raise ConfigError(
                    f"the tokenizer reads {text} as {list(encode(text))}, the manifest says "
                    f"{token}; they belong to different models: export the bundle again"
                )

    def text(self, text: str) -> Grid:
        """Content as it is, tokenized on its own."""
        return self._text_rows(self._encode_content(text))

    def speech_rows(self, codes: ArrayLike) -> Grid:
        """Codes [n] -> one spoken row each; a single code is allowed too."""
        codes = np.atleast_1d(np.asarray(codes, np.int64))
        assert ((codes >= 0) & (codes < self._tokens.eosp)).all(), "not speech codes"
        return np.stack((np.full_like(codes, self._tokens.modality_pad), codes), axis=1)

    def open_turn(self, role: Role) -> Grid:
        """What precedes the content of a turn."""
        return self._template(f"{START}{role}\n")

    def close_turn(self) -> Grid:
        """What follows the content of a turn."""
        return self._template(f"{END}\n")

    def text_turn(self, role: Role, text: str) -> Grid:
        """A whole written turn."""
        return np.concatenate((self.open_turn(role), self.text(text), self.close_turn()))

    def speech_turn(self, role: Role, codes: ArrayLike) -> Grid:
        """A whole spoken turn of at least one code."""
        rows = self.speech_rows(codes)
        assert len(rows), "a spoken turn without codes"
        opening = np.concatenate((self.open_turn(role), self._text_rows([self._tokens.sosp])))
        return np.concatenate((opening, rows, self.end_of_speech(), self.close_turn()))

    def system(self, text: str) -> Grid:
        """The system turn, which comes first."""
        return self.text_turn("system", text)

    def user_open(self) -> Grid:
        """Rows before the first code of a spoken question: these can run before it begins."""
        return np.concatenate((self.open_turn("user"), self._text_rows([self._tokens.sosp])))

    def user_close_speech(self) -> Grid:
        """Rows after the last code of a spoken question."""
        return np.concatenate((self.end_of_speech(), self.close_turn()))

    def end_of_speech(self) -> Grid:
        """The spoken row that ends a piece of speech."""
        return np.array([[self._tokens.modality_pad, self._tokens.eosp]], np.int64)

    def assistant_prefix(self, spoken: bool) -> Grid:
        """Rows after which the model replies; one string, as in training."""
        return self._template(f"{START}assistant\n{SPEECH if spoken else ''}")

    def reply_rest(self, last: ArrayLike, spoken: bool) -> Grid:
        """Rows still missing after a reply whose last row is `last` [2], wherever it stopped.

        Speech cut off lacks its end-of-speech row; a model that closed its turn lacks only the
        newline. Source: contract C.2, after step 7.
        """
        text, audio = np.asarray(last)
        if text == self._tokens.im_end:
            return self.close_turn()[1:]
        ended = not spoken or (text, audio) == (self._tokens.modality_pad, self._tokens.eosp)
        return self.close_turn() if ended else self.user_close_speech()

    def _template(self, text: str) -> Grid:
        return self._text_rows(self._encode(text))

    def _text_rows(self, ids: Sequence[int]) -> Grid:
        text = np.asarray(ids, np.int64)
        return np.stack((text, np.full_like(text, self._tokens.audio_pad)), axis=1)
