"""`antiphon export`: a checkpoint folder becomes a bundle folder."""

from __future__ import annotations

import argparse
from pathlib import Path

from antiphon.runtime.errors import ConfigError

from . import voice
from .extras import needed_for
from .progress import progress


def run(args: argparse.Namespace) -> int:
    """Export, saying on stderr what is being done; the bundle is whole or absent."""
    with needed_for("exporting"):
        from antiphon.export.pipeline import export
    try:
        with progress() as shown:
            manifest = export(
                args.checkpoint,
                args.output,
                progress=shown,
                weights=args.weights,
                statistics=args.statistics,
                kv=args.kv,
                target=args.target,
                voices=voice.recordings(_voices(args.voice)),
                noise_frames=args.noise_frames,
                jobs=args.jobs,
                parity=args.parity,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_kept(args.output)) from None
    size = sum(entry.size_bytes for entry in manifest.files)
    print(f"{args.output}: {manifest.name}, {size / 1e6:.1f} MB, {len(manifest.engines)} engines")
    return 0


def _voices(named: list[tuple[str, Path]]) -> dict[str, Path]:
    voices = dict(named)
    if len(voices) < len(named):
        raise ConfigError(f"--voice names one voice twice: {', '.join(name for name, _ in named)}")
    return voices


def _kept(output: Path) -> str:
    """What an interrupted export has left."""
    from antiphon.export.journal import finished_parts
    from antiphon.export.writer import partial_folder

    parts = finished_parts(partial_folder(output))
    if not parts:
        return "nothing was finished yet"
    return f"{', '.join(parts)} finished; the same command goes on from there"
