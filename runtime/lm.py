"""The language model as three engines that share positions: trunk, speech branch, text branch.

    rows -> embeddings -> trunk -> hidden rows -+-> speech branch -> speech logits
                                                +-> text branch   -> text logits

Only the branch whose logits are asked for runs. The other one sleeps: it owes the rows it has
missed, their hidden rows are kept, and it pays them in chunks before it next answers. The result
is that of running both (contract A.3, permitted shortcuts).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .backend import Engine
from .bundle import Bundle
from .errors import CapacityError
from .history import Grid, History
from .kv_ring import KVRing
from .manifest import LMSizes

Floats = NDArray[np.float32]

DEFAULT_CAPACITY = 4096  # 5.5 minutes of speech


def capacity_of(sizes: LMSizes, chosen: int | None) -> int:
    """Rows remembered: as many as chosen, else what the model was trained on, up to a limit."""
    return chosen or min(DEFAULT_CAPACITY, sizes.context_rows)


def rope_frequencies(head_dim: int, theta: float) -> NDArray[np.float64]:
    """Radians per position [D/2] (contract A.3 step 4), in float64: no position is too far."""
    frequencies: NDArray[np.float64] = theta ** (-np.arange(0, head_dim, 2) / head_dim)
    return frequencies


class _Stage:
    """One engine and its ring."""

    def __init__(self, engine: Engine, ring: KVRing) -> None:
        self.engine = engine
        self.ring = ring
        self.logits: Floats | None = None  # of row `answered` - 1; the trunk has none
        self.answered = 0


class LanguageModel:
    """A conversation, row by row. Weights are the engines'; this object is the state."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        capacity: int | None = None,
        pinned: int = 0,
        chunk: int = 64,
        threads: int = 1,
        exact: bool = False,
    ) -> None:
        """Load the engines and make empty rings.

        capacity  rows remembered (default: what the model was trained on, at most 4096)
        pinned    first rows, the system turn, that are never forgotten
        chunk     rows per engine call when many are run
        """
        self.sizes = bundle.manifest.lm
        audio_ids = max(self.sizes.audio_vocab, bundle.manifest.tokens.audio_pad + 1)
        self.history = History(self.sizes.text_vocab, audio_ids)
        self._embeddings = bundle.embeddings
        self._frequencies = rope_frequencies(self.sizes.head_dim, self.sizes.rope_theta)
        self._capacity = capacity_of(self.sizes, capacity)
        # one row more than a call writes: after a rewind the last row is run again for its logits
        fits = chunk < self._capacity - pinned
        self._chunk = chunk if fits else max(1, (self._capacity - pinned) // 2)
        engines = (
            bundle.engine(name, threads=threads, exact=exact)
            for name in ("trunk", "speech_branch", "text_branch")
        )
        self._trunk, self._speech, self._text = (_Stage(e, self._ring(e, pinned)) for e in engines)
        self.reset()

    def reset(self) -> None:
        """Forget the conversation."""
        for stage in self._stages:
            stage.ring.clear()
            stage.logits, stage.answered = None, 0
        self.history.clear()
        self._turns: list[int] = []
        self._hidden = np.zeros((0, self.sizes.hidden_size), np.float32)  # by slot, as in the rings

    @property
    def length(self) -> int:
        """Rows of the conversation, forgotten ones too."""
        return self._trunk.ring.length

    @property
    def turns(self) -> tuple[int, ...]:
        """Where turns begin in `history.rows`, evicted ones left out."""
        return tuple(turn - self._trunk.ring.evicted for turn in self._turns)

    @property
    def free(self) -> int:
        """Rows that fit before the oldest one is forgotten."""
        return self._trunk.ring.free

    @property
    def owed(self) -> int:
        """Rows that the branch further behind has not run yet."""
        return self.length - min(self._speech.ring.length, self._text.ring.length)

    @property
    def rewindable(self) -> int:
        """The largest n that `rewind` accepts."""
        reach = [s.ring.rewindable + self.length - s.ring.length for s in self._stages]
        return min(reach)

    @property
    def nbytes(self) -> int:
        """Memory of the state: rings and kept hidden rows."""
        return self._hidden.nbytes + sum(stage.ring.nbytes for stage in self._stages)

    def prefill(self, rows: Grid) -> None:
        """Run rows [n, 2] through the trunk; both branches then owe them."""
        for start in range(0, len(rows), self._chunk):
            cut = rows[start : start + self._chunk]
            for count, slot in self._trunk.ring.plan(len(cut)):
                self._run_trunk(cut[:count], slot)
                cut = cut[count:]

    def append(self, row: tuple[int, int]) -> None:
        """Run one row."""
        self.prefill(np.array([row], np.int64))

    def speech_logits(self) -> Floats:
        """Audio logits [V] of the last row. Do not write into them."""
        return self._answer(self._speech)

    def text_logits(self) -> Floats:
        """Text logits [V] of the last row. Do not write into them."""
        return self._answer(self._text)

    def pay(self, rows: int | None = None) -> int:
        """Let the branches run what they owe, at most `rows` rows; returns the rows run.

        Optional: it only moves work from the next answer to a quieter moment.
        """
        paid = 0
        for branch in (self._speech, self._text):
            owed = self.length - branch.ring.length
            count = owed if rows is None else min(owed, rows - paid)
            self._pay(branch, branch.ring.length + count)
            paid += count
        return paid

    def rewind(self, rows: int) -> None:
        """Undo the last `rows` rows: afterwards they have never been run.

        Raises CapacityError, and changes nothing, when older rows were overwritten or evicted.
        """
        if rows > self.rewindable:
            raise CapacityError(
                f"cannot rewind {rows} of {self.length} rows: {self.rewindable} are still whole "
                f"in a ring of {self._capacity}; raise the capacity or make room earlier"
            )
        length = self.length - rows
        for stage in self._stages:
            stage.ring.rewind(max(0, stage.ring.length - length))
        self.history.rewind(rows)
        self._turns = [turn for turn in self._turns if turn <= length]

    def begin_turn(self) -> None:
        """Remember that the next row starts a turn: `make_room` drops whole turns."""
        if not self._turns or self._turns[-1] != self.length:
            self._turns.append(self.length)

    def make_room(self, rows: int) -> int:
        """Evict whole turns, oldest first, until `rows` fit or one turn is left; rows evicted."""
        evicted = 0
        while self.free < rows and (later := self._later_turns()):
            count = later[0] - self._trunk.ring.first
            self.evict(count)
            evicted += count
        return evicted

    def evict(self, rows: int) -> None:
        """Forget the `rows` oldest rows that are not pinned and that the next row would see.

        Branches pay first. The pinned keys are turned forward, so that no two rows are ever
        further apart than the capacity (design §5).
        """
        if not rows:
            return
        self.pay()
        gone = self._trunk.ring.evicted
        for stage in self._stages:
            stage.ring.evict(rows)
            stage.ring.rotate_pinned(stage.ring.evicted, self._frequencies)
        ring = self._trunk.ring
        self.history.forget(ring.pinned, ring.evicted - gone)
        self._turns = [turn for turn in self._turns if turn >= ring.first]

    @property
    def _stages(self) -> tuple[_Stage, _Stage, _Stage]:
        return (self._trunk, self._speech, self._text)

    def _ring(self, engine: Engine, pinned: int) -> KVRing:
        return KVRing.for_engine(engine, self._capacity, pinned=pinned, chunk=self._chunk + 1)

    def _later_turns(self) -> list[int]:
        """Starts of the turns behind the oldest one, which the window may have cut."""
        return [turn for turn in self._turns if turn > self._trunk.ring.first]

    def _rope(self, first: int, rows: int) -> dict[str, Floats]:
        angles = np.arange(first, first + rows)[None, :, None] * self._frequencies  # [1, S, D/2]
        return {"cos": np.cos(angles).astype("f4"), "sin": np.sin(angles).astype("f4")}

    def _run_trunk(self, rows: Grid, slot: int) -> None:
        ring, count = self._trunk.ring, len(rows)
        for branch in (self._speech, self._text):
            # the new rows take the place of hidden rows that may still be owed
            self._pay(branch, ring.length + count - self._hidden_ring)
        feeds = {"embeddings": self._embeddings.rows(rows)[None]}
        feeds |= self._rope(ring.length, count) | ring.feeds(ring.length, count)
        hidden = self._trunk.engine.run(feeds, [ring])["hidden"][0]
        if len(self._hidden) < ring.allocated:
            grown = np.zeros((ring.allocated, self.sizes.hidden_size), np.float32)
            grown[: len(self._hidden)] = self._hidden
            self._hidden = grown
        self._hidden[slot : slot + count] = hidden
        ring.advance(count)
        self.history.extend(rows)

    @property
    def _hidden_ring(self) -> int:
        return self._capacity - self._trunk.ring.pinned

    def _pay(self, branch: _Stage, until: int) -> None:
        """Run the branch over the rows it owes before position `until`."""
        ring = branch.ring
        while ring.length < until:
            for count, slot in ring.plan(min(self._chunk, until - ring.length)):
                feeds = {"hidden": self._hidden[None, slot : slot + count]}
                feeds |= self._rope(ring.length, count) | ring.feeds(ring.length, count)
                branch.logits = branch.engine.run(feeds, [ring])["logits"][0]
                ring.advance(count)
                branch.answered = ring.length

    def _answer(self, branch: _Stage) -> Floats:
        assert self.length, "no row yet"
        if branch.ring.length == self.length and branch.answered != self.length:
            branch.ring.rewind(1)  # rows were rewound: run the last one again
        self._pay(branch, self.length)
        assert branch.logits is not None
        return branch.logits
