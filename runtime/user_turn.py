"""The user's turn while it is being given: sound or text waiting to be worked in."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from .encoder import MAX_CODES, EncoderMark
from .errors import AudioError, CapacityError
from .lm import LanguageModel
from .metrics import TurnMetrics
from .prompt import Grid
from .stages import Stages

Pcm = NDArray[np.float32]


def checked(pcm: Pcm) -> Pcm:
    """A private float32 copy of a block [S]. Raises AudioError for what no microphone gives."""
    block = np.array(pcm, np.float32)
    if block.ndim != 1:
        raise AudioError(f"audio of shape {list(block.shape)}, expected one channel [S]")
    if not np.isfinite(block).all():
        raise AudioError("audio with samples that are not finite; check the recording")
    return block


@dataclass(slots=True)
class UserTurn:
    """Sound arrives in blocks and leaves in pieces of at most what one job may take."""

    start: int  # rows of the conversation before this turn
    text: str | None = None  # a written turn; a spoken one if None
    opened: bool = False  # its first rows are in
    ended: bool = False  # nothing more will come
    samples: int = 0  # ever put in
    mark: EncoderMark | None = None  # the encoder before the turn was closed …
    mark_rows: int = 0  # … and the rows of the conversation then
    _blocks: deque[Pcm] = field(default_factory=deque)

    @property
    def waiting(self) -> bool:
        """Whether sound is waiting."""
        return bool(self._blocks)

    def put(self, pcm: Pcm) -> None:
        """Append a block [S] that nobody else will write into."""
        if len(pcm):
            self._blocks.append(pcm)
            self.samples += len(pcm)

    def end(self, least: int) -> None:
        """Nothing more comes. A turn without any sound becomes `least` samples of silence."""
        if self.text is None and not self.samples:
            self.put(np.zeros(least, np.float32))
        self.ended = True

    def take(self, limit: int) -> Pcm:
        """The oldest waiting samples, at most `limit`."""
        taken, count = [np.zeros(0, np.float32)], 0
        while self._blocks and count < limit:
            head, rest = np.split(self._blocks.popleft(), [limit - count])
            if len(rest):
                self._blocks.appendleft(rest)
            taken.append(head)
            count += len(head)
        return np.concatenate(taken)


def next_rows(turn: UserTurn, stages: Stages, metrics: TurnMetrics) -> tuple[Grid, bool]:
    """The rows [n, 2] of the next piece of the turn, and whether they close it."""
    prompt, encoder, text, rows = stages.prompt, stages.encoder, turn.text, []
    if not turn.opened:
        rows.append(prompt.user_open() if text is None else prompt.text_turn("user", text))
        turn.opened = True
    if text is None:
        with metrics.stage("encoder"):
            codes = encoder.push(turn.take(MAX_CODES * stages.manifest.encoder.samples_per_code))
        rows.append(prompt.speech_rows(codes))
    closing = turn.ended and not turn.waiting
    if closing and text is None:
        turn.mark, turn.mark_rows = encoder.mark(), stages.lm.length + sum(map(len, rows))
        with metrics.stage("encoder"):
            rows += [prompt.speech_rows(encoder.finish()), prompt.user_close_speech()]
    if closing:
        rows.append(stages.prefix)
    return np.concatenate(rows), closing


def make_room(lm: LanguageModel, turn: UserTurn, rows: int) -> None:
    """Forget old exchanges until the next `rows` of the turn fit.

    Raises CapacityError when all are forgotten and they still do not.
    """
    lm.make_room(rows)
    if lm.free < rows:
        used = lm.length - turn.start
        raise CapacityError(
            f"this turn needs {used + rows} rows and there is room for {used + lm.free}; take "
            "shorter turns, or raise capacity_rows"
        )
