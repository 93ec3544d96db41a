"""Which parts of the language model lose most when quantized, one at a time.

Every part makes a variant of the model. All variants go through the reference together, so that
each layer is read once and only one is in memory:

    exact   -- layer 0 ----- layer 1 ----- layer 2 --- heads
    part 0  -- quantized --- layer 1 ----- layer 2 --- heads
    part 1                   quantized --- layer 2 --- heads
    whole   -- quantized --- quantized --- quantized - heads

Where a head would draw the next id of a reply, its probabilities are compared with the exact ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from antiphon.quant.blocks import dequantize
from antiphon.quant.recipe import METHODS
from antiphon.quant.schemes import INT8_ROW, QuantError, Scheme
from antiphon.quant.schemes import scheme as scheme_named
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.prompt import Grid
from antiphon.runtime.text import TextTokenizer

from ..checkpoint import Checkpoint
from ..parity import loaded
from ..progress import Progress, Silence
from ..reference.lm import DecoderLayer, RMSNorm, rotary
from .dialogues import SPEECH, WRITTEN, Floats
from .drawn import drawn_rows

_OPENING = "<|im_start|>assistant\n"
_ENGINES = {"shared": "trunk", "audio": "speech_branch", "text": "text_branch"}
_HEADS = {"audio": SPEECH, "text": WRITTEN}
_TABLES = ("model.embed_tokens.weight", "model.audio_embed.weight")  # text, audio
_CHUNK = 64  # rows whose logits are in memory at a time


@dataclass(frozen=True, slots=True)
class Loss:
    """What quantizing one part alone costs."""

    part: str  # such as "trunk layer 3", or "trunk, all layers"
    match: str  # the rule of a recipe that means it
    scheme: str
    nbytes: int  # with that scheme
    kl: dict[str, float] = field(default_factory=dict)  # by head: mean over its rows, nats
    agreement: dict[str, float] = field(default_factory=dict)  # share of rows with the same best

    @property
    def worst(self) -> float:
        """KL of the head that suffers more."""
        return max(self.kl.values(), default=0.0)


@dataclass(frozen=True, slots=True)
class _Way:
    """How a matrix is stored."""

    scheme: Scheme
    method: str

    def fit(self, inputs: int) -> Scheme:
        """The scheme for so many inputs; a block that its name states is kept, or QuantError."""
        s = self.scheme
        if s.block_size and s.name.endswith(f"_b{s.block_size}"):
            s.groups(inputs)
        return s.fit(inputs)

    def apply(self, weight: Floats) -> Floats:
        """A matrix [O, I] as it would come back."""
        return dequantize(METHODS[self.method](weight, self.fit(weight.shape[1])))

    def nbytes(self, shape: tuple[int, ...]) -> int:
        """Codes and scales of a matrix [O, I]."""
        outputs, inputs = shape
        return outputs * inputs * self.scheme.bits // 8 + 4 * outputs * self.fit(inputs).blocks(
            inputs
        )


def sensitivity(
    source: Checkpoint,
    dialogues: Iterable[Grid],
    *,
    scheme: str = "int4_b128",
    method: str = "rtn",
    progress: Progress | None = None,
) -> list[Loss]:
    """Quantize layers, heads and tables one at a time; the greatest loss first.

    dialogues   rows [T, 2] of each, with replies of the model; looked at last
    The embedding tables become int8, a scale to a row: no recipe may store them in less. Raises
    ConfigError, before any work, for a scheme that does not exist or does not fit the matrices,
    and where no reply is to be found.
    """
    way = _way(source, scheme, method)
    grids = list(dialogues)
    opening = TextTokenizer(source.tokenizer_json).encode(_OPENING)
    drawn = [drawn_rows(grid, source.special_ids, opening) for grid in grids]
    if not any(rows for found in drawn for rows in found.values()):
        raise ConfigError("the dialogues hold no reply; make them with a bundle of this checkpoint")
    with torch.no_grad():
        losses = _Walk(source, way, grids, drawn, progress or Silence()).run()
    return sorted(losses, key=lambda loss: -loss.worst)


def _way(source: Checkpoint, scheme: str, method: str) -> _Way:
    try:
        if method not in METHODS:
            raise QuantError(f"unknown method {method!r}; known: {', '.join(METHODS)}")
        way = _Way(scheme_named(scheme), method)
        if not way.scheme.quantized:
            raise QuantError(f"{scheme} is no loss worth measuring; choose codes of 8 or 4 bits")
        for name, shape in source.shapes("lm").items():
            if len(shape) == 2 and name not in _TABLES:
                way.fit(shape[1])
    except QuantError as error:
        raise ConfigError(f"scheme {scheme}: {error}") from error
    return way


class _Walk:
    """All variants on their way through the layers.

    Rows are kept by dialogue as [V, T, H]: the exact ones, then those of each part in `self.parts`.
    """

    def __init__(
        self,
        source: Checkpoint,
        way: _Way,
        grids: Sequence[Grid],
        drawn: Sequence[dict[str, list[int]]],
        tell: Progress,
    ) -> None:
        self.source, self.way, self.grids, self.drawn = source, way, grids, drawn
        self.tell, self.config, self.done = tell, source.lm_config, 0
        c = self.config
        self.steps = c.num_shared_layers + 2 * c.num_modality_layers + 3

    def run(self) -> list[Loss]:
        """All losses, in the order of the layers; what both heads see is stated of both."""
        x, tables = self._embeddings()
        parts = [tables]
        x = self._block("shared", x, parts)
        trunk, losses = len(parts), {part.part: part for part in parts}
        for branch, head in _HEADS.items():
            own = parts[:trunk]
            y = self._block(branch, x, own)
            for loss in self._head(branch, head, y, own):
                old = losses.get(loss.part, loss)
                kl, agreement = old.kl | loss.kl, old.agreement | loss.agreement
                losses[loss.part] = replace(loss, kl=kl, agreement=agreement)
        return list(losses.values())

    def _step(self, what: str) -> None:
        self.tell.step(what, self.done, self.steps)
        self.done += 1
        self.tell.advance(self.done, self.steps)

    def _embeddings(self) -> tuple[list[Tensor], Loss]:
        """Rows of each dialogue [2, T, H]: exact, and of quantized tables; each id read once."""
        self._step("tables")
        c, rows = self.config, np.concatenate(self.grids)
        spoken = rows[:, 0] == c.modality_pad_token_id
        x = np.empty((len(rows), c.hidden_size), np.float32)
        shapes = self.source.shapes("lm")
        for channel, table in enumerate(_TABLES):
            mine = spoken if channel else ~spoken
            for token in np.unique(rows[mine, channel]).tolist():
                row = self.source.read_rows("lm", table, token, token + 1)
                x[mine & (rows[:, channel] == token)] = row
        kept = _Way(INT8_ROW, "rtn")  # scales belong to rows: those not looked up do not matter
        both = torch.from_numpy(np.stack((x, kept.apply(x))))
        nbytes = sum(kept.nbytes(shapes[table]) for table in _TABLES)
        tables = Loss("embedding tables", "tables/*", INT8_ROW.name, nbytes)
        return list(torch.split(both, [len(grid) for grid in self.grids], dim=1)), tables

    def _block(self, block: str, x: list[Tensor], parts: list[Loss]) -> list[Tensor]:
        """Run a block; every layer adds a variant and a part, and the whole block one more."""
        c, engine = self.config, _ENGINES[block]
        depth = c.num_shared_layers if block == "shared" else c.num_modality_layers
        ropes = [
            rotary(torch.arange(t.shape[1]), c.head_dim, c.rope_theta, torch.float32) for t in x
        ]
        whole, nbytes = [t[:1] for t in x], 0
        for i in range(depth):
            self._step(f"{engine} layer {i}")
            prefix = f"model.{block}_block.layers.{i}."
            layer = loaded(
                lambda: DecoderLayer(c), lambda name: self.source.read("lm", name), prefix
            )
            after = [layer(t, rope, None)[0] for t, rope in zip(x, ropes, strict=True)]
            size = self._quantize(layer)
            lossy = [
                layer(torch.cat((t[:1], w)), rope, None)[0]
                for t, w, rope in zip(x, whole, ropes, strict=True)
            ]
            x = [torch.cat((a, y[:1])) for a, y in zip(after, lossy, strict=True)]
            whole, nbytes = [y[1:] for y in lossy], nbytes + size
            parts.append(
                Loss(f"{engine} layer {i}", f"{engine}/{prefix}*", self.way.scheme.name, size)
            )
        match = f"{engine}/model.{block}_block.*"
        parts.append(Loss(f"{engine}, all layers", match, self.way.scheme.name, nbytes))
        return [torch.cat((t, w)) for t, w in zip(x, whole, strict=True)]

    def _quantize(self, layer: nn.Module) -> int:
        """Replace the matrices of a layer by what would come back; returns their size in bytes."""
        size = 0
        for weight in layer.parameters():
            if weight.ndim == 2:
                size += self.way.nbytes(tuple(weight.shape))
                weight.copy_(torch.from_numpy(self.way.apply(weight.numpy())))
        return size

    def _head(self, branch: str, head: str, x: list[Tensor], parts: list[Loss]) -> list[Loss]:
        """Compare the logits of every variant, and of the head itself quantized."""
        engine, name = _ENGINES[branch], f"{branch}_lm_head.weight"
        self._step(f"{engine} head")
        norm = RMSNorm(self.config.hidden_size, self.config.rms_norm_eps)
        stored = self.source.read("lm", f"model.{branch}_norm.weight")
        norm.weight.copy_(torch.from_numpy(stored))
        before = [[row - 1 for row in found[head]] for found in self.drawn]
        rows = norm(torch.cat([t[:, at] for t, at in zip(x, before, strict=True)], dim=1))
        weight = self.source.read("lm", name)
        own = Loss(
            f"{engine} head",
            f"{engine}/{name}",
            self.way.scheme.name,
            self.way.nbytes(weight.shape),
        )
        if not rows.shape[1]:
            return [*parts, own]
        exact, lossy = (torch.from_numpy(w) for w in (weight, self.way.apply(weight)))
        measured = _compare(rows, exact, lossy, self._legal(head, len(weight)))
        return [
            replace(part, kl={head: kl}, agreement={head: same})
            for part, (kl, same) in zip([*parts, own], measured, strict=True)
        ]

    def _legal(self, head: str, count: int) -> Tensor:
        """Ids [V] that this head may draw."""
        tokens, ids = self.source.special_ids, torch.arange(count)
        return ids <= tokens.eosp if head == SPEECH else ids != tokens.modality_pad


def _compare(
    rows: Tensor, exact: Tensor, lossy: Tensor, legal: Tensor
) -> list[tuple[float, float]]:
    """Normed rows [V, n, H] and two heads [vocabulary, H] -> mean KL and agreement by variant.

    The last one is that of the exact rows through the lossy head.
    """
    count = rows.shape[1]
    sums = np.zeros((len(rows), 2))
    for start in range(0, count, _CHUNK):
        cut = rows[:, start : start + _CHUNK]
        p = _log_probabilities(cut[0], exact, legal)
        others = [_log_probabilities(row, exact, legal) for row in cut[1:]]
        for i, q in enumerate([*others, _log_probabilities(cut[0], lossy, legal)]):
            sums[i, 0] += float((p.exp() * (p - q)).sum())
            sums[i, 1] += float((p.argmax(1) == q.argmax(1)).sum())
    return [(max(0.0, float(kl)), float(same)) for kl, same in sums / count]


def _log_probabilities(rows: Tensor, head: Tensor, legal: Tensor) -> Tensor:
    """Rows [n, H] -> [n, legal ids], float64."""
    return torch.log_softmax((rows @ head.T)[:, legal].double(), dim=1)
