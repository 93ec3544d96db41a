"""The path of one spoken code through the language model: trunk, then speech branch.

The engines are those of a bundle, or made of random numbers in the sizes of the 9 B model; they are
run as `antiphon.runtime.lm` runs them, with rings already as long as the conversation to be timed.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiphon.export.lm_graph import Writing, build_branch, build_trunk
from antiphon.export.reference.config import LMConfig
from antiphon.quant import kv_cache
from antiphon.quant.recipe import load_recipe
from antiphon.runtime.backend import Engine
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.kv_ring import KVRing
from antiphon.runtime.lm import DEFAULT_CAPACITY, rope_frequencies

from .layout import Sizes
from .lookalike import Numbers

TRUNK, BRANCH = "trunk", "speech_branch"
_LARGEST = 6.0  # of keys and values, for the scales of int8 caches; random ones are mostly below 4


def sizes_of(layers: int) -> Sizes:
    """The 9 B model with `layers` layers on the speaking path; 36 as published."""
    branch = max(1, layers // 9)
    return Sizes(shared_layers=layers - branch, modality_layers=branch)


def build(folder: Path, sizes: Sizes, weights: str, jobs: int = 1, kv: str = "float32") -> None:
    """Write both engines with random weights by the recipe `weights`, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    config = LMConfig.from_json(sizes.lm_config())
    shapes, numbers, recipe = sizes.census("lm"), Numbers(), load_recipe(weights)

    shape = (config.num_key_value_heads, config.head_dim)
    scale = kv_cache.scales(np.full(shape, _LARGEST, np.float32))
    how = Writing(jobs=jobs, caches=(lambda _: (scale, scale)) if kv == "int8" else None)

    def read(name: str) -> NDArray[np.float32]:
        return numbers.array(name, shapes[name])

    trunk, branch = (folder / f"{name}.onnx" for name in (TRUNK, BRANCH))
    if not trunk.exists():  # it is written after its weights
        build_trunk(config, read, recipe, trunk, how)
    if not branch.exists():
        build_branch(config, "audio", read, recipe, branch, how)


def weight_bytes(folder: Path) -> int:
    """Weights that one step reads: all there are."""
    return sum((folder / f"{name}.data").stat().st_size for name in (TRUNK, BRANCH))


class SpeakingPath:
    """Both engines with a conversation of any length behind them."""

    def __init__(self, folder: Path, sizes: Sizes, threads: int = 1, kv: str = "float32") -> None:
        """Load the engines in `folder`; of `sizes` only the widths count.

        Raises ConfigError unless their caches are `kv`: they may have been there before.
        """
        config = LMConfig.from_json(sizes.lm_config())
        self._engines = [
            Engine.load(folder / f"{name}.onnx", threads=threads) for name in (TRUNK, BRANCH)
        ]
        if (found := self._engines[0].inputs["key_0"].dtype) != kv:
            raise ConfigError(f"{folder}: caches are {found}, not {kv}; name another folder")
        self._frequencies = rope_frequencies(config.head_dim, config.rope_theta)
        self._row = np.random.default_rng(0).standard_normal((1, 1, config.hidden_size), np.float32)
        self._rings: list[KVRing] = []

    @property
    def layers(self) -> int:
        """Layers that one step runs."""
        return sum(name.startswith("key_") for e in self._engines for name in e.inputs)

    def open(self, context: int, steps: int) -> None:
        """Begin with `context` rows remembered: random keys and values, as if they had been run.

        Storage is what a conversation would have after `steps` more.
        """
        capacity = max(DEFAULT_CAPACITY, context + steps)
        self._rings = [KVRing.for_engine(e, capacity) for e in self._engines]
        for ring in self._rings:
            ring.feeds(0, context + steps)
            ring.advance(context)
            pool = np.random.default_rng(0).standard_normal(1_048_573, np.float32)
            for buffer in ring.buffers.values():
                memory = buffer.numpy()
                unit = 127 / _LARGEST if memory.dtype == np.int8 else 1
                memory[...] = np.clip(np.resize(pool, memory.shape) * unit, -127, 127)

    @property
    def cache_bytes(self) -> int:
        """Keys and values of the rows that the next step sees."""
        return sum(ring.length * ring.layout.row_bytes for ring in self._rings)

    @property
    def allocated(self) -> int:
        """Rows that attention computes over, remembered or not."""
        return self._rings[0].allocated

    def step(self) -> NDArray[np.float32]:
        """Run one row; speech logits [1, V]."""
        x = self._row
        for engine, ring, names in zip(
            self._engines,
            self._rings,
            (("embeddings", "hidden"), ("hidden", "logits")),
            strict=True,
        ):
            angles = ring.length * self._frequencies[None, None]
            feeds = {names[0]: x, "cos": np.cos(angles), "sin": np.sin(angles)}
            x = engine.run(feeds | ring.feeds(ring.length, 1), [ring])[names[1]]
            ring.advance(1)
        return x

    def back(self, rows: int) -> None:
        """Undo the last rows."""
        for ring in self._rings:
            ring.rewind(rows)
