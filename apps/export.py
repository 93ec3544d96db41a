"""`antiphon export`: a checkpoint folder becomes a bundle folder. The only door to PyTorch."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from antiphon.runtime.errors import ConfigError

TOOLS = {"onnx", "safetensors", "torch"}


def run(args: argparse.Namespace) -> int:
    """Export, saying on stderr what is being done; the bundle is whole or absent."""
    export = _exporter()
    manifest = export(
        args.checkpoint,
        args.output,
        weights=args.weights,
        target=args.target,
        noise_frames=args.noise_frames,
        progress=_show,
    )
    size = sum(entry.size_bytes for entry in manifest.files)
    print(f"{args.output}: {manifest.name}, {size / 1e6:.1f} MB, {len(manifest.engines)} engines")
    return 0


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


def _show(what: str, number: int, count: int) -> None:
    """One line for each step: `what` comes next, `number` of `count` are done."""
    print(f"{number + 1}/{count} {what}", file=sys.stderr, flush=True)
