"""`antiphon export`: a checkpoint folder becomes a bundle folder. The only door to PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import ConfigError

from . import voice
from .export_progress import Bar, Lines

TOOLS = {"onnx", "safetensors", "torch"}
INTERRUPTED = 130


def run(args: argparse.Namespace) -> int:
    """Export, saying on stderr what is being done; the bundle is whole or absent."""
    export = _exporter()
    progress = Bar(sys.stderr) if sys.stderr.isatty() else Lines(sys.stderr)
    try:
        manifest = export(
            args.checkpoint,
            args.output,
            progress=progress,
            weights=args.weights,
            statistics=args.statistics,
            target=args.target,
            voices=voice.recordings(_voices(args.voice)),
            noise_frames=args.noise_frames,
            jobs=args.jobs,
            parity=args.parity,
        )
    except KeyboardInterrupt:
        progress.close()
        print(f"antiphon: interrupted; {_kept(args.output)}", file=sys.stderr)
        return INTERRUPTED
    finally:
        progress.close()
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


def _exporter() -> Callable[..., Any]:
    try:
        from antiphon.export.pipeline import export
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in TOOLS:
            raise  # a bug of ours, not a missing extra
        raise ConfigError(
            f"exporting needs {error.name}; install the tools: pip install 'antiphon[export]'"
        ) from error
    return export
