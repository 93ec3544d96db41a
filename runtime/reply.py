"""What the model answers, as far as it has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import ceil

import numpy as np
from numpy.typing import NDArray

from .metrics import TurnMetrics
from .text import TextStream

Pcm = NDArray[np.float32]


class Ending(Enum):
    """Why a reply has no more rows."""

    COMPLETE = "complete"  # the model ended it
    TRUNCATED = "truncated"  # row budget, or no room left
    CANCELLED = "cancelled"


@dataclass(slots=True)
class Reply:
    """Grows while the session works; read it between steps."""

    spoken: bool
    metrics: TurnMetrics
    stream: TextStream
    codes: list[int] = field(default_factory=list)  # speech, 12.5 per second
    chunks: list[Pcm] = field(default_factory=list)  # their samples, 24 kHz, as they come
    text: str = ""  # whole characters only, until the end
    ending: Ending | None = None  # None: rows are still to come
    begun: bool = False  # something of it was handed on: sound, or text if it is written
    finished: bool = False  # all rows and all samples are there, or it was cancelled
    heard_codes: int | None = None  # of a cancelled reply: what the history keeps

    @property
    def pcm(self) -> Pcm:
        """All samples so far [S]."""
        return np.concatenate([np.zeros(0, np.float32), *self.chunks])

    def unspoken(self, code_samples: int) -> int:
        """Codes that are not samples yet, at so many samples per code."""
        return len(self.codes) - sum(map(len, self.chunks)) // code_samples

    def heard(self, samples: int | None, code_samples: int) -> int:
        """Codes of which a part was heard when `samples` were played; all where nobody plays."""
        made = len(self.codes)
        return made if samples is None else max(0, min(made, ceil(samples / code_samples)))

    def delivered(self) -> None:
        """What there is was handed on, unless that is over."""
        if self.ending is Ending.CANCELLED:
            return
        self.begun |= bool(self.chunks if self.spoken else self.text)
        if self.chunks:
            self.metrics.happened("first_sample")

    def drop(self) -> None:
        """It never happened."""
        self.end(Ending.CANCELLED)
        self.heard_codes, self.finished = 0, True

    def settle(self, *, speaking: bool) -> None:
        """Finished, unless rows are still to come or samples of them."""
        if self.ending is not None and not speaking:
            self.finished = True
            self.metrics.happened("reply_end")

    def end(self, ending: Ending) -> None:
        """No more rows will come."""
        self.ending = ending
        self.text += self.stream.finish()
