"""What of a conversation can be saved: its rows. The model's state is made from them again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import numpy as np

from .errors import ConfigError
from .history import AUDIO, TEXT, Grid
from .manifest import Manifest

_WAY_OUT = "give the bundle it was held with, or begin a new one"


@dataclass(frozen=True, slots=True, eq=False)
class Conversation:
    """Rows [n, 2] of (text id, audio id), the system turn first, and where turns begin."""

    rows: Grid
    turns: tuple[int, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"rows": self.rows.tolist(), "turns": list(self.turns)}

    @classmethod
    def from_dict(cls, raw: Any) -> Self:
        """What `as_dict` gave. Raises ConfigError for anything else."""
        try:
            rows, turns = np.array(raw["rows"]), np.array(raw["turns"], np.int64)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise ConfigError(f"not a saved conversation ({error!r}); begin a new one") from error
        whole = rows.ndim == 2 and rows.shape[1] == 2 and rows.dtype == np.int64
        if not whole or turns.ndim != 1:
            raise ConfigError(
                f"a saved conversation of {rows.dtype} {list(rows.shape)} with turns "
                f"{list(turns.shape)}, expected integers [n, 2] and [m]; begin a new one"
            )
        return cls(rows, tuple(turns.tolist()))

    def check(self, system: Grid, manifest: Manifest) -> None:
        """Raises ConfigError unless it is a conversation of this model and this system turn."""
        sizes, tokens = manifest.lm, manifest.tokens
        text, audio = self.rows[:, TEXT], self.rows[:, AUDIO]
        for ids, vocabulary in (
            (text, sizes.text_vocab),
            (audio, max(sizes.audio_vocab, tokens.audio_pad + 1)),
            (audio[text == tokens.modality_pad], sizes.audio_vocab),
        ):
            if len(ids) and not 0 <= ids.min() <= ids.max() < vocabulary:
                raise ConfigError(
                    f"the saved conversation has ids {ids.min()} … {ids.max()}, this model 0 … "
                    f"{vocabulary - 1}; {_WAY_OUT}"
                )
        if not np.array_equal(self.rows[: len(system)], system):
            raise ConfigError(f"the saved conversation has another system turn; {_WAY_OUT}")
        bounds = [len(system), *self.turns, len(self.rows)]
        if any(a > b for a, b in pairwise(bounds)) or bounds[1] != bounds[0]:
            raise ConfigError(
                f"the saved conversation has turns at {list(self.turns)[:9]}, expected from "
                f"{bounds[0]} upwards to {bounds[-1]}; begin a new one"
            )

    def newest(self, room: int) -> Iterator[Grid]:
        """The rows of the newest turns, turn by turn, as many whole turns as `room` rows hold."""
        for start, end in zip(self.turns, [*self.turns[1:], len(self.rows)], strict=False):
            if len(self.rows) - start <= room:
                yield self.rows[start:end]
