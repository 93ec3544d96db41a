"""The experiments as pictures: small SVG files, the same for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .recording import Estimate
from .similarity import OWN, Level, Map, Similarity
from .states import AUDIO, TEXT, TRUNK
from .tokenizer_check import WAYS, TokenizerCheck

STYLE: Any = {
    "svg.hashsalt": "antiphon",  # otherwise every run names its parts anew
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "image.interpolation": "nearest",
}
COLOURS = {TRUNK: "#222222", TEXT: "#1f77b4", AUDIO: "#d1495b", OWN: "#7a9e3a"}
LABELS = {
    TRUNK: "trunk",
    TEXT: "both in the text branch",
    AUDIO: "both in the audio branch",
    OWN: "each in its own branch",
}


def draw_similarity(found: Similarity, folder: Path) -> list[Path]:
    """Write similarity.svg and similarity-maps.svg into `folder`; returns their paths."""
    with matplotlib.rc_context(STYLE):
        curves = Figure(figsize=(11, 3.6), layout="constrained")
        plain, contrast, share = curves.subplots(1, 3)
        _cosines(plain, found)
        _curve(contrast, found, "contrast")
        contrast.set_title("contrast: itself less others, centred; band: 95 %")
        contrast.axvline(found.peak.layer, color="0.6", linewidth=1, linestyle=":")
        _curve(share, found, "found")
        share.set_title("spoken sentences that find their text")
        share.set_ylim(0, 1)
        for axes in (plain, contrast, share):
            axes.axvline(found.shared_layers, color="0.8", linewidth=4, zorder=0)
            axes.set_xlabel("layers passed; grey: where the branches split")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        contrast.legend()
        return [_save(curves, folder / "similarity.svg"), _save_maps(found, folder)]


def draw_tokenizer(found: TokenizerCheck, folder: Path) -> list[Path]:
    """Write tokenizer.svg into `folder`; returns its path in a list."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9, 3.4), layout="constrained")
        errors, codes = figure.subplots(1, 2)
        _errors(errors, found)
        use = found.usage
        codes.loglog(range(1, len(use.counts) + 1), use.counts, color=COLOURS[TRUNK])
        codes.set_title(
            f"{len(use.counts)} of {use.codebook} codes in use, {use.bits:.1f} bits each, "
            f"{use.bits_per_s:.0f} bit/s"
        )
        codes.set_xlabel("rank of the code")
        codes.set_ylabel("times heard")
        return [_save(figure, folder / "tokenizer.svg")]


def _cosines(axes: Axes, found: Similarity) -> None:
    """Plain cosines: a sentence with itself, and with the others."""
    for way, levels in _ways(found):
        layers = [level.layer for level in levels]
        itself, others = [x.cosine.value for x in levels], [x.cosine_others for x in levels]
        axes.plot(layers, itself, "o-", markersize=3, color=COLOURS[way])
        axes.plot(layers, others, "--", linewidth=1, color=COLOURS[way])
    axes.plot([], [], "o-", markersize=3, color="0.4", label="a sentence with itself")
    axes.plot([], [], "--", linewidth=1, color="0.4", label="with the others")
    axes.set_title("cosine of aligned rows, speech and text")
    axes.legend()


def _curve(axes: Axes, found: Similarity, name: str) -> None:
    """One estimate over the layers, for every way."""
    for way, levels in _ways(found):
        layers = [level.layer for level in levels]
        estimates: list[Estimate] = [getattr(level, name) for level in levels]
        values = [x.value for x in estimates]
        axes.plot(layers, values, "o-", markersize=3, color=COLOURS[way], label=LABELS[way])
        low, high = [x.low for x in estimates], [x.high for x in estimates]
        axes.fill_between(layers, low, high, color=COLOURS[way], alpha=0.12, linewidth=0)


def _ways(found: Similarity) -> list[tuple[str, list[Level]]]:
    """The levels of each way; those of the branches begin where the trunk ends."""
    trunk = found.along(TRUNK)
    branches = [(way, [trunk[-1], *found.along(way)]) for way in (TEXT, AUDIO, OWN)]
    return [*branches, (TRUNK, trunk)]


def _save_maps(found: Similarity, folder: Path) -> Path:
    """The mapped sentence at a few depths, with the best path through it."""
    shared = found.shared_layers
    wanted = {(TRUNK, layer) for layer in (0, shared // 2, found.peak.layer, shared)}
    wanted.add((OWN, found.levels[-1].layer))
    maps = [m for m in found.maps if (m.way, m.layer) in wanted]
    figure = Figure(figsize=(2.3 * len(maps) + 1, 3.4), layout="constrained")
    row = np.atleast_1d(figure.subplots(1, len(maps), sharey=True))
    limit = max(float(np.abs(m.cosines).max()) for m in maps)
    for axes, one in zip(row, maps, strict=True):
        image = _map(axes, one, found.pieces, limit)
    figure.colorbar(image, ax=row.tolist(), label="centred cosine", shrink=0.8)
    figure.supxlabel(f"spoken: {found.mapped.text}", fontsize=9)
    return _save(figure, folder / "similarity-maps.svg")


def _map(axes: Axes, one: Map, pieces: Sequence[str], limit: float) -> matplotlib.image.AxesImage:
    image = axes.imshow(
        one.cosines.T, aspect="auto", cmap="RdBu_r", vmin=-limit, vmax=limit, origin="upper"
    )
    axes.plot(one.path[:, 0], one.path[:, 1], color="black", linewidth=1)
    name = "embedding" if one.layer == 0 else f"after layer {one.layer}"
    axes.set_title(f"{name}, {LABELS[one.way] if one.way == OWN else one.way}", fontsize=8)
    axes.set_yticks(range(len(pieces)), [repr(piece)[1:-1] for piece in pieces])
    axes.set_xlabel("code (80 ms)")
    return image


def _errors(axes: Axes, found: TokenizerCheck) -> None:
    """Bars with their intervals."""
    place = np.arange(len(WAYS))
    for shift, name, colour in ((-0.2, "letters", COLOURS[TEXT]), (0.2, "words", COLOURS[AUDIO])):
        estimates: list[Estimate] = [getattr(reading, name) for reading in found.readings]
        values = np.array([x.value for x in estimates])
        ends = np.array([[x.value - x.low, x.high - x.value] for x in estimates]).T
        axes.bar(place + shift, 100 * values, 0.36, color=colour, label=name)
        axes.errorbar(place + shift, 100 * values, 100 * ends, fmt="none", ecolor="0.2", capsize=3)
    axes.set_xticks(place, WAYS)
    axes.set_title(
        f"errors of the probe, %: {found.trained_on} recordings learned, {len(found.truth)} read"
    )
    axes.legend()


def _save(figure: Figure, path: Path) -> Path:
    figure.savefig(path, format="svg", metadata={"Date": None, "Creator": "antiphon"})
    return path
