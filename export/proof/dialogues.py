"""Questions put to a bundle, and the grid rows of what it answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import CapacityError, ConfigError
from antiphon.runtime.history import TEXT, Grid
from antiphon.runtime.metrics import TurnMetrics
from antiphon.runtime.reply import Ending, Reply
from antiphon.runtime.sampling import Mode, initial_mode, next_mode
from antiphon.runtime.session_config import SessionConfig
from antiphon.runtime.stages import Stages
from antiphon.runtime.text import TextStream
from antiphon.runtime.thinker import CLOSING_ROWS

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

SPEECH, WRITTEN = "speech", "text"  # the two heads, and the two kinds of question and reply


@dataclass(frozen=True, slots=True)
class Question:
    """A recording [S] at the encoder's rate, and what is said in it; one of the two is enough."""

    name: str
    pcm: Floats | None = None
    text: str | None = None

    def __post_init__(self) -> None:
        if self.pcm is None and self.text is None:
            raise ConfigError(f"question {self.name}: neither a recording nor a text; give one")


@dataclass(frozen=True, slots=True)
class Dialogue:
    """One question and its reply, as grid rows [T, 2], the system turn first."""

    question: str  # its name
    asked: str  # SPEECH or WRITTEN
    answered: str  # SPEECH or WRITTEN
    rows: Grid
    first: int  # row of the reply: what precedes it is given
    stop: int  # after the last row that the model drew: what follows is the template's
    complete: bool  # the model ended it; otherwise it ran to the limit

    def spoken(self, modality_pad: int) -> NDArray[np.bool_]:
        """Which of the rows drawn came from the speech head [stop - first]."""
        return np.asarray(self.rows[self.first : self.stop, TEXT] == modality_pad)

    def codes(self, modality_pad: int, eosp: int) -> Codes:
        """The speech of the reply [n]."""
        audio = self.rows[self.first : self.stop, 1][self.spoken(modality_pad)]
        return np.asarray(audio[audio != eosp])


class Respondent:
    """A bundle that is asked questions: every exchange is a conversation of its own.

    Ids are drawn as the bundle's manifest says, with seed 0: the same bundle gives the same rows.
    """

    def __init__(self, bundle: Bundle, *, threads: int = 1) -> None:
        self.manifest = bundle.manifest
        self._stages = stages = Stages.load(bundle, SessionConfig(threads=threads))
        prompts = bundle.manifest.prompts
        self._system = {
            SPEECH: stages.prompt.system(prompts.spoken),
            WRITTEN: stages.prompt.system(prompts.text),
        }

    def hear(self, pcm: Floats) -> Codes:
        """A recording [S] -> its codes [n], as a conversation would make them."""
        encoder = self._stages.encoder
        encoder.reset()
        return np.concatenate((encoder.push(pcm), encoder.finish()))

    def speak(self, codes: Codes) -> Floats:
        """Codes [n] of a reply -> samples [S]."""
        voice = self._stages.voice
        assert voice is not None, "loaded for spoken replies"
        return np.concatenate((voice.push(codes), voice.finish()))

    def ask(
        self, question: Question, asked: str, answered: str, codes: Codes | None = None
    ) -> tuple[Dialogue, list[Floats]]:
        """Put a question; returns the dialogue and the logits [V] that each of its rows is from.

        codes   of a spoken question, where they are known
        Raises CapacityError when the question does not fit.
        """
        lm, first = self._stages.lm, self._prompt(question, asked, answered, codes)
        tokens, thinker = self.manifest.tokens, self._stages.thinker()
        reply = Reply(answered == SPEECH, TurnMetrics(), TextStream(self._stages.text))
        voice = self._stages.voice
        most = voice.flow.max_codes if voice and answered == SPEECH else None
        mode, logits, stop = initial_mode(lm.history.rows[-1], tokens), [], first
        while not thinker.done:
            logits.append(self._logits(mode))
            stop = lm.length + 1
            thinker.step(reply, most)
            mode = next_mode(mode, lm.history.rows[stop - 1], tokens)
        complete, rows = reply.ending is Ending.COMPLETE, lm.history.rows.copy()
        return Dialogue(question.name, asked, answered, rows, first, stop, complete), logits

    def replay(self, dialogue: Dialogue) -> Iterator[Floats]:
        """The logits [V] from which this model would have drawn each row of the reply."""
        lm, rows = self._stages.lm, dialogue.rows
        lm.reset()
        lm.prefill(rows[: dialogue.first])
        spoken = dialogue.spoken(self.manifest.tokens.modality_pad)
        for at, audio in zip(range(dialogue.first, dialogue.stop), spoken, strict=True):
            yield self._logits(Mode.AUDIO if audio else Mode.TEXT)
            lm.prefill(rows[at : at + 1])

    def _logits(self, mode: Mode) -> Floats:
        lm = self._stages.lm
        found = lm.speech_logits() if mode is Mode.AUDIO else lm.text_logits()
        return np.array(found, np.float32).reshape(-1)

    def _prompt(self, question: Question, asked: str, answered: str, codes: Codes | None) -> int:
        """Run everything before the reply; returns how many rows that is."""
        lm, prompt, rows = self._stages.lm, self._stages.prompt, [self._system[answered]]
        if asked == SPEECH:
            assert question.pcm is not None
            codes = self.hear(question.pcm) if codes is None else codes
            rows += [prompt.user_open(), prompt.speech_rows(codes), prompt.user_close_speech()]
        else:
            assert question.text is not None
            rows.append(prompt.text_turn("user", question.text))
        rows.append(prompt.assistant_prefix(answered == SPEECH))
        grid = np.concatenate(rows)
        lm.reset()
        if lm.free < len(grid) + CLOSING_ROWS + 2:
            raise CapacityError(
                f"question {question.name} takes {len(grid)} rows, the model remembers {lm.free}; "
                "leave it out or cut it"
            )
        lm.prefill(grid)
        return len(grid)


def kinds(question: Question) -> list[tuple[str, str]]:
    """(asked, answered): every way this question can be put."""
    asked = [SPEECH] if question.pcm is not None else []
    asked += [WRITTEN] if question.text is not None else []
    return [(a, b) for a in asked for b in (SPEECH, WRITTEN)]


def check_questions(questions: Sequence[Question]) -> None:
    """Raise ConfigError unless there is something to ask."""
    if not questions:
        raise ConfigError(
            "no question to ask; name a folder of recordings with --questions (wav or flac)"
        )
