"""`antiphon analyze`: two experiments on a checkpoint, as tables, JSON and pictures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from antiphon.runtime.log_mel import RATE_HZ

from . import audio_file, recordings
from .analyze_options import SIMILARITY, TOKENIZER
from .audio_file import Pcm
from .extras import needed_for
from .progress import Lines, progress
from .recordings import Spoken
from .results import check_writable, make_folder, write_json
from .text_table import columns


def run(args: argparse.Namespace) -> int:
    """Print the table, write what was asked for."""
    experiment = _experiment(args.experiment)
    draw = _artist(args.experiment, args.pictures) if args.pictures else None
    check_writable(args.json)
    found = recordings.find(args.recordings)
    asked = _distinct(found) if args.experiment == SIMILARITY else found
    options = {"steps": args.steps} if args.experiment == TOKENIZER else {}
    with progress() as shown:
        result = experiment(args.checkpoint, asked[: args.limit], shown, **options)
    lines = _similarity(result) if args.experiment == SIMILARITY else _tokenizer(result)
    print("\n".join(lines))
    if args.json:
        write_json(args.json, result.as_dict())
    for path in draw(result, args.pictures) if draw else ():
        print(f"drawn: {path}", file=sys.stderr)
    return 0


def _experiment(name: str) -> Callable[..., Any]:
    with needed_for("analyzing"):
        from antiphon.export.analysis import experiments
        from antiphon.export.analysis.recording import Recording

    def experiment(checkpoint: Path, asked: list[Spoken], shown: Lines, **options: int) -> Any:
        given = [Recording(one.name, one.text, partial(_read, one.path)) for one in asked]
        return getattr(experiments, name)(checkpoint, given, shown, **options)

    return experiment


def _artist(name: str, folder: Path) -> Callable[..., Any]:
    """What draws the result. Raises ConfigError, before the work, where nothing could be drawn."""
    with needed_for("--pictures"):
        from antiphon.export.analysis import pictures
    make_folder(folder)
    draw: Callable[..., Any] = getattr(pictures, f"draw_{name}")
    return draw


def _read(path: Path) -> Pcm:
    return audio_file.read(audio_file.inspect(path), RATE_HZ)


def _distinct(found: list[Spoken]) -> list[Spoken]:
    """The first recording of each text."""
    first: dict[str, Spoken] = {}
    for spoken in found:
        first.setdefault(spoken.text, spoken)
    return list(first.values())


def _similarity(found: Any) -> list[str]:
    head = ["layer", "way", "cosine", "others", "centred", "others", "contrast", "found"]
    rows = [
        [
            str(x.layer),
            x.way,
            f"{x.cosine.value:.3f}",
            f"{x.cosine_others:.3f}",
            f"{x.centred.value:.3f}",
            f"{x.centred_others:.3f}",
            f"{x.contrast.value:.3f} ({x.contrast.low:.3f} … {x.contrast.high:.3f})",
            f"{100 * x.found.value:.0f} %",
        ]
        for x in found.levels
    ]
    return [
        f"{len(found.sentences)} sentences, spoken and written; cosines along the best path, 95 %",
        *columns([head, *rows]),
        _verdict(found),
    ]


def _verdict(found: Any) -> str:
    split = f"the branches split after layer {found.shared_layers}"
    if not found.meets:
        return f"no contrast in the trunk is surely above zero: nothing to split by; {split}"
    return (
        f"the contrast in the trunk is highest after layer {found.peak.layer}, and no lower within "
        f"the error up to layer {found.split.layer}; {split}"
    )


def _tokenizer(found: Any) -> list[str]:
    head = ["read from", "wrong letters", "wrong words"]
    rows = [[x.way, _percent(x.letters), _percent(x.words)] for x in found.readings]
    cost, use = found.as_dict()["codebook_cost"], found.usage
    left_out = f", {found.too_fast} left out as too fast" if found.too_fast else ""
    return [
        f"probe trained on {found.trained_on} recordings{left_out}; {len(found.truth)} of other "
        "sentences read, 95 %",
        *columns([head, *rows]),
        f"the codebook costs {100 * cost['value']:.1f} points of the letters "
        f"({100 * cost['low']:.1f} … {100 * cost['high']:.1f})",
        f"{len(use.counts)} of {use.codebook} codes in use, {use.bits:.1f} bits each, "
        f"{use.bits_per_s:.0f} bit/s",
    ]


def _percent(x: Any) -> str:
    return f"{100 * x.value:.1f} % ({100 * x.low:.1f} … {100 * x.high:.1f})"
