"""Watch the reference work: dialogues run through it one layer at a time, inputs are sampled.

    bundle answers questions -> grid rows -> embeddings -> layer 0 -> ... -> trunk -> either branch
                                                            | inputs of its matrices
                                                            v
                                                  N rows of each, kept for GPTQ and AWQ;
                                                  peaks of keys and values, for int8 caches

One layer is in memory. What is finished is kept: the same command goes on after it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import BundleError, ConfigError
from antiphon.runtime.prompt import Grid

from .checkpoint import Checkpoint
from .dialogues import Interview, Pcm
from .manifest_facts import model_facts
from .parity import loaded
from .progress import Counter, Progress, Silence
from .reference.config import LMConfig
from .reference.lm import DecoderLayer, RMSNorm, rotary
from .statistics import (
    READERS,
    CachePeaks,
    Index,
    Inputs,
    Statistics,
    fingerprint,
    layer_names,
    read_arrays,
    read_index,
    save_index,
    save_layer,
    to_half,
)

Floats = NDArray[np.float32]

DIALOGUES = "dialogues.npz"
_STATE = "after.{}.npy"  # hidden rows behind a layer, [R, H] float32


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a calibration may be told."""

    recordings: Sequence[Pcm] = ()  # spoken questions at 16 kHz
    texts: Sequence[str] = ()  # written ones
    dialogues: int = 64
    rows: int = 4096  # kept of each input
    seed: int = 0
    threads: int = 1  # of each engine while dialogues are made
    device: str = "cpu"  # where the reference runs, as PyTorch names it

    def __post_init__(self) -> None:
        if self.dialogues < 1 or self.rows < 1:
            raise ConfigError(f"dialogues {self.dialogues}, rows {self.rows}: expected 1 or more")
        if self.device != "cpu" and not torch.cuda.is_available():
            raise ConfigError(f"device {self.device!r}: PyTorch finds no CUDA here; choose cpu")

    def key(self, bundle: Bundle) -> str:
        """A digest of all that decides what is sampled."""
        heard = [sha256(np.ascontiguousarray(r).data).hexdigest() for r in self.recordings]
        facts = [heard, list(self.texts), self.dialogues, self.rows, self.seed]
        engines = asdict(bundle.manifest)["engines"]
        return sha256(json.dumps([facts, engines], sort_keys=True).encode()).hexdigest()


def calibrate(
    checkpoint: Path,
    folder: Path,
    bundle: Path,
    *,
    progress: Progress | None = None,
    **settings: Any,
) -> Statistics:
    """Write the statistics of a checkpoint into `folder`; a calibration that was stopped goes on.

    bundle     of the same checkpoint, however its weights are stored: it makes the dialogues
    settings   fields of `Settings`
    Raises ConfigError where bundle and checkpoint do not belong together or there is no question,
    BundleError where the folder holds something else, or was made otherwise, CorruptFile for
    damaged files.
    """
    chosen, source, tell = Settings(**settings), Checkpoint.open(checkpoint), progress or Silence()
    model = Bundle.open(bundle)
    _check_same(source, model)
    index = _begin(folder, source, chosen.key(model), tell)
    grids = _dialogues(folder, model, chosen, tell)
    work = _Walk(source, folder, grids, chosen)
    left = [name for name in layer_names(source) if name not in index.layers]
    count = Counter(tell, work.rows * len(left))
    for name in left:
        tell.step(name, len(index.layers), len(layer_names(source)))
        save_layer(folder, name, *work.layer(name, count))
        index = replace(index, rows=work.rows, layers=(*index.layers, name))
        save_index(folder, index)
        work.forget(index)
    return Statistics(folder, index)


def _check_same(source: Checkpoint, model: Bundle) -> None:
    stated, facts = asdict(model.manifest), model_facts(source)
    if model.manifest.sources != facts["sources"] or stated["lm"] != asdict(facts["lm"]):
        raise ConfigError(
            f"the bundle {model.manifest.name!r} was not made from {source.directory}; name one "
            "that was with --bundle, or make one: antiphon export"
        )


def _begin(folder: Path, source: Checkpoint, key: str, tell: Progress) -> Index:
    """What is finished already. Raises BundleError where that was made otherwise."""
    mark = fingerprint(source)
    if folder.exists() and any(folder.iterdir()):
        if (index := read_index(folder)) is None:
            raise BundleError(f"{folder}: holds something else; choose another folder")
        if (index.checkpoint, index.questions) != (mark, key):
            raise BundleError(
                f"{folder}: holds statistics of another checkpoint, or of other questions; choose "
                "another folder, or remove this one"
            )
        if index.layers:
            tell.note(f"going on after an earlier calibration; finished: {len(index.layers)}")
        return index
    folder.mkdir(parents=True, exist_ok=True)
    index = Index(checkpoint=mark, questions=key, rows=0)
    save_index(folder, index)
    return index


def _dialogues(folder: Path, model: Bundle, chosen: Settings, tell: Progress) -> list[Grid]:
    """Dialogues [T, 2], those of the folder if they are there."""
    path = folder / DIALOGUES
    if not path.exists():
        tell.step("dialogues", 0, 1)
        people = Interview(
            model, chosen.recordings, chosen.texts, seed=chosen.seed, threads=chosen.threads
        )
        made = []
        for grid in people.dialogues(chosen.dialogues):
            made.append(grid)
            tell.advance(len(made), chosen.dialogues)
        new = folder / f"{DIALOGUES}.new"
        with new.open("wb") as file:
            np.savez(file, allow_pickle=False, **{f"{i:06}": grid for i, grid in enumerate(made)})
        new.replace(path)
    return read_arrays(path)


class _Walk:
    """All dialogues on their way through the layers."""

    def __init__(
        self, source: Checkpoint, folder: Path, grids: Sequence[Grid], chosen: Settings
    ) -> None:
        self.source, self.folder, self.device = source, folder, torch.device(chosen.device)
        self.grids, self.lengths = grids, [len(grid) for grid in grids]
        self.rows = sum(self.lengths)
        kept = np.random.default_rng(chosen.seed).permutation(self.rows)[: chosen.rows]
        self.picked = np.sort(kept)
        self._last = layer_names(source)[source.lm_config.num_shared_layers - 1]
        self._at: tuple[str, Floats] = ("", np.zeros((0, 0), np.float32))  # rows behind a layer

    @torch.no_grad()
    def layer(
        self, name: str, count: Callable[[int], None]
    ) -> tuple[dict[str, Inputs], CachePeaks | None]:
        """Run one layer, or the norm before a head; returns the inputs of its matrices.

        Of a layer also the peaks of its keys and values.
        """
        x, c = self._before(name), self.source.lm_config
        if name.endswith("_lm_head"):
            norm = self._loaded(lambda: RMSNorm(c.hidden_size, c.rms_norm_eps), _norm_of(name))
            sample = _Sample(self.picked)
            for start, rows in self._split(x):
                sample.add(start, norm(rows)[0])
                count(rows.shape[1])
            return {"head": sample.inputs()}, None
        layer = self._loaded(lambda: DecoderLayer(c), name)
        samples = {key: _Sample(self.picked) for key in READERS}
        out, caches = np.empty_like(x), CachePeaks.none(c.num_key_value_heads, c.head_dim)
        for start, rows in self._split(x):
            with _Watch(layer, samples, start):
                y, kv = layer(rows, _rope(c, rows), None)
            caches = caches.joined(*(side.float().cpu().numpy() for side in kv))
            out[start : start + rows.shape[1]] = y[0].cpu().numpy()
            count(rows.shape[1])
        self._keep(name, out)
        return {key: sample.inputs() for key, sample in samples.items()}, caches

    def forget(self, index: Index) -> None:
        """Remove hidden rows that no layer still to come begins with."""
        wanted = {_STATE.format(self._last), _STATE.format(self._at[0])}
        done = len(index.layers) == len(layer_names(self.source))
        for path in self.folder.glob(_STATE.format("*")):
            if done or path.name not in wanted:
                path.unlink()

    def _loaded(self, make: Callable[[], nn.Module], name: str) -> nn.Module:
        module = loaded(make, lambda tensor: self.source.read("lm", tensor), f"{name}.")
        return module.to(self.device)

    def _split(self, x: Floats) -> list[tuple[int, Tensor]]:
        starts = np.cumsum([0, *self.lengths[:-1]]).tolist()
        cuts = zip(starts, self.lengths, strict=True)
        return [(s, torch.from_numpy(x[None, s : s + n]).to(self.device)) for s, n in cuts]

    def _before(self, name: str) -> Floats:
        """Hidden rows [R, H] that a layer begins with."""
        names = layer_names(self.source)
        before = names[names.index(name) - 1]
        if name == names[0]:
            return self._embeddings()
        if name.endswith("_block.layers.0"):
            before = self._last
        if self._at[0] != before:
            self._at = before, np.load(self.folder / _STATE.format(before), allow_pickle=False)
        return self._at[1]

    def _keep(self, name: str, x: Floats) -> None:
        path = self.folder / _STATE.format(name)
        new = path.with_suffix(".new")
        with new.open("wb") as file:
            np.save(file, x, allow_pickle=False)
        new.replace(path)
        self._at = name, x

    def _embeddings(self) -> Floats:
        """Rows [R, H] of both tables, each id read once."""
        c, grid = self.source.lm_config, np.concatenate(self.grids)
        spoken = grid[:, 0] == c.modality_pad_token_id
        x = np.empty((len(grid), c.hidden_size), np.float32)
        for channel, table in enumerate(("model.embed_tokens.weight", "model.audio_embed.weight")):
            mine = spoken if channel else ~spoken
            for token in np.unique(grid[mine, channel]).tolist():
                row = self.source.read_rows("lm", table, token, token + 1)
                x[mine & (grid[:, channel] == token)] = row
        return x


class _Sample:
    """Some rows of one input, and the largest magnitudes of all."""

    def __init__(self, picked: NDArray[np.intp]) -> None:
        self._picked, self._rows, self._peak = picked, list[Floats](), np.zeros(0, np.float32)

    def add(self, start: int, rows: Tensor) -> None:
        """Rows [n, I], the first of which is number `start` of all."""
        first, last = np.searchsorted(self._picked, (start, start + len(rows)))
        self._rows.append(rows[self._picked[first:last] - start].float().cpu().numpy())
        peak = rows.abs().amax(dim=0).float().cpu().numpy()
        self._peak = np.maximum(self._peak, peak) if self._peak.size else peak

    def inputs(self) -> Inputs:
        """What was seen."""
        return Inputs(to_half(np.concatenate(self._rows)), self._peak)


class _Watch:
    """Lets samples see what enters the matrices of a layer, as long as the block lasts."""

    def __init__(self, layer: nn.Module, samples: dict[str, _Sample], start: int) -> None:
        self._hooks = [
            layer.get_submodule(READERS[key][0]).register_forward_pre_hook(
                lambda _, args, sample=sample: sample.add(start, args[0][0])
            )
            for key, sample in samples.items()
        ]

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()


def _norm_of(head: str) -> str:
    return f"model.{head.removesuffix('_lm_head')}_norm"


def _rope(c: LMConfig, rows: Tensor) -> tuple[Tensor, Tensor]:
    positions = torch.arange(rows.shape[1], device=rows.device)
    return rotary(positions, c.head_dim, c.rope_theta, rows.dtype)
