"""A reference bundle whose every engine call is made a second time, by the candidate's engine.

The candidate's engine gets what the reference's got, and keeps its own keys and values of it. So
the difference of their outputs is what this one engine does, whatever the others do.

    feeds -+-> reference engine, its caches -> output, used
           +-> candidate engine, its caches -> output, only compared
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.backend import Buffer, Cache, Engine
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.bundle_files import Voice

CODES = "codes"
OUTPUTS = {  # what is compared of each engine; the encoder's is codes, the others' are floats
    "encoder": CODES,
    "trunk": "hidden",
    "speech_branch": "logits",
    "text_branch": "logits",
    "flow_encoder": "mu",
    "flow_step": "x_out",
    "vocoder": "pcm",
}


@dataclass(slots=True)
class EngineError:
    """Sums over everything that one engine has put out."""

    codes: bool = False  # whole numbers, of which only equality counts
    calls: int = 0
    values: int = 0
    equal: int = 0
    signal: float = 0.0  # squares of the reference
    other: float = 0.0  # squares of the candidate
    product: float = 0.0
    noise: float = 0.0  # squares of the difference
    largest: float = 0.0  # difference

    def add(self, exact: NDArray[Any], measured: NDArray[Any]) -> None:
        """One call: two outputs of the same shape."""
        a, b = exact.astype(np.float64).ravel(), measured.astype(np.float64).ravel()
        difference = b - a
        self.calls += 1
        self.values += len(a)
        self.equal += int((difference == 0).sum())
        self.signal += float(a @ a)
        self.other += float(b @ b)
        self.product += float(a @ b)
        self.noise += float(difference @ difference)
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    @property
    def sqnr_db(self) -> float | None:
        """Signal to quantization noise ratio; None of codes, without noise or without signal."""
        if self.codes or not (self.noise and self.signal):
            return None
        return 10 * float(np.log10(self.signal / self.noise))

    @property
    def cosine(self) -> float | None:
        """Of the angle between all outputs of the two; None where one is all zeros."""
        scale = (self.signal * self.other) ** 0.5
        return self.product / scale if scale else None

    @property
    def agreement(self) -> float | None:
        """Share of equal values, the measure of codes; None without any."""
        return self.equal / self.values if self.values else None


class _Twin:
    """The candidate's own memory in the place of one of the reference's caches."""

    def __init__(self) -> None:
        self.buffers: Mapping[str, Buffer] = {}

    def follow(self, cache: Cache, engine: Engine) -> None:
        """Take on the sizes of `cache`, in the dtypes of `engine`, keeping the rows there are."""
        old, wanted = self.buffers, cache.buffers
        shapes = {name: buffer.numpy().shape for name, buffer in wanted.items()}
        if shapes == {name: buffer.numpy().shape for name, buffer in old.items()}:
            return
        self.buffers = {
            name: Buffer(shape, engine.inputs[name].dtype, engine.device)
            for name, shape in shapes.items()
        }
        for name, buffer in old.items():
            kept = buffer.numpy()[:, :, : shapes[name][2]]
            self.buffers[name].set_rows(kept)


class ShadowedEngine(Engine):
    """The reference's engine to whoever calls it."""

    def __init__(self, reference: Engine, candidate: Engine, error: EngineError) -> None:
        """Both engines are loaded; `error` grows with every call."""
        self.name, self._error = reference.name, error
        self.inputs, self.outputs = reference.inputs, reference.outputs
        self._reference, self._candidate = reference, candidate
        self._twins: WeakKeyDictionary[Cache, _Twin] = WeakKeyDictionary()

    @property
    def device(self) -> str:
        """Where the reference's caches live."""
        return self._reference.device

    def run(
        self, feeds: Mapping[str, NDArray[Any]], caches: Sequence[Cache] = ()
    ) -> dict[str, NDArray[Any]]:
        """Run both; returns what the reference puts out."""
        twins = [self._twins.setdefault(cache, _Twin()) for cache in caches]
        for cache, twin in zip(caches, twins, strict=True):
            twin.follow(cache, self._candidate)
        found, what = self._reference.run(feeds, caches), OUTPUTS[self.name]
        self._error.add(found[what], self._candidate.run(feeds, twins)[what])
        return found


class ShadowedBundle(Bundle):
    """The reference, with the candidate behind it. `errors` fills while the bundle is used.

    Its voices are the candidate's: both are given the same prompt.
    """

    def __init__(self, reference: Bundle, candidate: Bundle) -> None:
        super().__init__(reference.path, reference.manifest)
        self._reference, self._candidate = reference, candidate
        self.errors = {n: EngineError(codes=what == CODES) for n, what in OUTPUTS.items()}

    def engine(
        self, name: str, *, threads: int = 1, exact: bool = False, log_level: int | None = None
    ) -> Engine:
        """Load the engine of both."""
        settings: dict[str, Any] = {"threads": threads, "exact": exact, "log_level": log_level}
        return ShadowedEngine(
            self._reference.engine(name, **settings),
            self._candidate.engine(name, **settings),
            self.errors[name],
        )

    @property
    def voices(self) -> list[str]:
        """Names of the candidate's voices, the default one first."""
        return self._candidate.voices

    def voice(self, name: str | None = None) -> Voice:
        """One voice of the candidate; its first one unless named."""
        return self._candidate.voice(name)
