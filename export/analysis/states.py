"""Hidden states of the reference language model at every depth, one layer in memory at a time.

                 text branch   S+1 … S+M
    trunk 0 … S <
                 audio branch  S+1 … S+M

Depth 0 is the embedding, depth i the rows after layer i. Both branches see every row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..checkpoint import Checkpoint
from ..parity import loaded
from ..reference.lm import DecoderLayer, rotary

Floats = NDArray[np.float32]
Grid = NDArray[np.int64]

TRUNK, TEXT, AUDIO = "trunk", "text", "audio"
BLOCKS = {TRUNK: "shared_block", TEXT: "text_block", AUDIO: "audio_block"}
_ROWS = 4096  # of a batch


@dataclass(frozen=True, slots=True)
class Passage:
    """A conversation as grid rows [T, 2], and which of them are looked at: first to stop."""

    rows: Grid
    first: int
    stop: int


@dataclass(frozen=True, slots=True)
class Depth:
    """A place in the model."""

    block: str  # TRUNK, TEXT or AUDIO
    layer: int  # counted from the embedding, trunk and branch together


def hidden_states(
    source: Checkpoint, passages: Sequence[Passage]
) -> Iterator[tuple[Depth, list[Floats]]]:
    """At each depth, the rows [stop - first, H] of every passage; trunk, text and audio branch.

    Raises CorruptFile where a tensor cannot be read.
    """
    config, batches = source.lm_config, _batches(passages)
    shared, own = config.num_shared_layers, config.num_modality_layers
    trunk = [_embed(source, [passages[i].rows for i in batch]) for batch in batches]
    yield Depth(TRUNK, 0), _looked_at(trunk, batches, passages)
    for layer in range(shared):
        trunk = _run(source, TRUNK, layer, trunk)
        yield Depth(TRUNK, layer + 1), _looked_at(trunk, batches, passages)
    for block in (TEXT, AUDIO):
        hidden = trunk
        for layer in range(own):
            hidden = _run(source, block, layer, hidden)
            yield Depth(block, shared + layer + 1), _looked_at(hidden, batches, passages)


def _batches(passages: Sequence[Passage]) -> list[list[int]]:
    """Passages of like lengths together, so that little is padded."""
    batches: list[list[int]] = []
    for i in sorted(range(len(passages)), key=lambda i: len(passages[i].rows)):
        longest = len(passages[i].rows)  # so far
        if batches and (len(batches[-1]) + 1) * longest <= _ROWS:
            batches[-1].append(i)
        else:
            batches.append([i])
    return batches


def _looked_at(
    hidden: list[Tensor], batches: list[list[int]], passages: Sequence[Passage]
) -> list[Floats]:
    found: dict[int, Floats] = {}
    for x, batch in zip(hidden, batches, strict=True):
        for row, i in zip(x, batch, strict=True):
            found[i] = row[passages[i].first : passages[i].stop].numpy()
    return [found[i] for i in range(len(passages))]


def _embed(source: Checkpoint, grids: list[Grid]) -> Tensor:
    """Row embeddings [B, T, H], zeros after the end of the shorter ones (contract A.3)."""
    c = source.lm_config
    x = torch.zeros(len(grids), max(map(len, grids)), c.hidden_size)
    for name, column in (("embed_tokens", 0), ("audio_embed", 1)):
        rows: dict[int, Tensor] = {}  # of the table: it has hundreds of thousands, few are needed
        for b, grid in enumerate(grids):
            spoken = grid[:, 0] == c.modality_pad_token_id
            for t in np.flatnonzero(spoken if column else ~spoken):
                i = int(grid[t, column])
                if i not in rows:
                    table = source.read_rows("lm", f"model.{name}.weight", i, i + 1)
                    rows[i] = torch.from_numpy(table[0])
                x[b, t] = rows[i]
    return x


def _run(source: Checkpoint, block: str, number: int, hidden: list[Tensor]) -> list[Tensor]:
    """One layer over all batches [B, T, H]. Padding comes last, and no row sees a later one."""
    c, made = source.lm_config, []
    prefix = f"model.{BLOCKS[block]}.layers.{number}."
    layer = loaded(lambda: DecoderLayer(c), lambda name: source.read("lm", name), prefix)
    with torch.no_grad():
        for x in hidden:
            rope = rotary(torch.arange(x.shape[1]), c.head_dim, c.rope_theta, x.dtype)
            made.append(layer(x, rope, None)[0])
    return made
