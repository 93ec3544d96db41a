"""`antiphon info` says what a bundle holds; `antiphon verify` checks every byte of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

import numpy as np

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.manifest import EngineEntry, Manifest
from antiphon.runtime.tensors import TensorSpec

from .questions import FOLDER as QUESTIONS
from .text_table import columns


def run(args: argparse.Namespace) -> int:
    """Print the facts of the manifest; files are looked at but not hashed."""
    bundle = Bundle.open(args.bundle, verify=False)
    if args.json:
        facts = {"path": str(bundle.path), "bytes": _bytes(bundle.manifest)}
        print(json.dumps(facts | bundle.manifest.to_dict(), ensure_ascii=False))
    else:
        print("\n".join(_lines(bundle)))
    return 0


def verify(args: argparse.Namespace) -> int:
    """Open the bundle with every check there is; a defect is an error that names it."""
    manifest = Bundle.open(args.bundle, verify=True).manifest
    print(
        f"{args.bundle}: whole; {len(manifest.files)} files, {_size(_bytes(manifest))}, "
        f"{len(manifest.engines)} engines, every hash right"
    )
    return 0


def _lines(bundle: Bundle) -> list[str]:
    m = bundle.manifest
    lm, codes_per_s = m.lm, m.encoder.sample_rate_hz / m.encoder.samples_per_code
    rows = {
        "folder": str(bundle.path),
        "size": f"{_size(_bytes(m))} in {len(m.files)} files",
        "made for": f"{m.target}, weights {m.weights}, format {m.format_version}",
        "layers": f"{lm.shared_layers} shared, {lm.modality_layers} for speech, "
        f"{lm.modality_layers} for text; width {lm.hidden_size}",
        "context": f"{lm.context_rows} rows; one second of speech takes {codes_per_s:g}",
        "memory": f"{_row_bytes(m)} bytes a row, keys and values in {_kept(m)}",
        "voices": ", ".join(m.voices),
        "sampling": ", ".join(f"{k} {v}" for k, v in asdict(m.sampling).items()),
        "spoken": f'prompt "{m.prompts.spoken}"',
        "written": f'prompt "{m.prompts.text}"',
    }
    if m.quality:
        rows["quality"] = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in m.quality.items())
    if (bundle.path / QUESTIONS).is_dir():
        rows["answers"] = "such as `antiphon demo --list` shows"
    lines = [m.name, *columns([*rows.items()])]
    if m.sources:
        lines += ["", "made from", *columns([*m.sources.items()])]
    return [*lines, "", *_engine_lines(m)]


def _caches(manifest: Manifest) -> list[TensorSpec]:
    """What the language model remembers in: [1, G, C, D] each."""
    engines = (manifest.engines[name] for name in ("trunk", "speech_branch", "text_branch"))
    return [s for e in engines for s in e.inputs if s.name.startswith(("key_", "value_"))]


def _row_bytes(manifest: Manifest) -> int:
    values = manifest.lm.kv_heads * manifest.lm.head_dim
    return sum(values * np.dtype(spec.dtype).itemsize for spec in _caches(manifest))


def _kept(manifest: Manifest) -> str:
    return "+".join(sorted({spec.dtype for spec in _caches(manifest)}))


def _engine_lines(manifest: Manifest) -> list[str]:
    rows = [("engine", "weights", "size", "largest difference from the reference")]
    for name, entry in manifest.engines.items():
        size = entry.file.size_bytes + sum(data.size_bytes for data in entry.data)
        rows.append((name, entry.scheme, _size(size), _parity(entry)))
    return columns(rows)


def _parity(entry: EngineEntry) -> str:
    measures = ", ".join(f"{what} {value:.3g}" for what, value in entry.parity.items())
    return measures or "not measured"


def _bytes(manifest: Manifest) -> int:
    return sum(entry.size_bytes for entry in manifest.files)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
