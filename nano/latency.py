"""How fast a bundle answers spoken questions, fed as a microphone would: 10 ms every 10 ms.

    python -m nano.latency nano/bundle [--limit N] [--against BUNDLE]

Prints one JSON line per bundle: end of question -> first sample, real-time factor, memory. With
--against the bundles take turns, question by question, so that the noise of the machine falls on
both. corpus.py reads files with soundfile, so torch is never loaded here.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.session import Session

from .train.corpus import load_index, read

BLOCK = 160  # samples at 16 kHz: 10 ms
Pcm = NDArray[np.float32]


class Stopwatch:
    """One bundle, its session and what was measured."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.session = Session(Bundle.open(path))
        self.first_sample_ms: list[float] = []
        self.factors: list[float] = []
        self.think_ms: list[float] = []

    def ask(self, pcm: Pcm) -> None:
        """One question [S] at 16 kHz in real time, then the whole reply."""
        session = self.session
        session.reset()
        start = time.perf_counter()
        for at in range(0, len(pcm), BLOCK):
            due = start + (at + BLOCK) / 16000
            while session.state.audio_waiting and time.perf_counter() < due:
                session.step()
            time.sleep(max(0.0, due - time.perf_counter()))
            session.listen(pcm[at : at + BLOCK])
        reply = session.run_reply()
        metrics = session.metrics
        if len(reply.pcm):
            self.first_sample_ms.append(metrics.waterfall_ms["first_sample"])
            self.factors.append(metrics.rtf or np.nan)
            self.think_ms.append(1000 * metrics.seconds["think"] / metrics.counts["think"])

    def row(self) -> dict[str, Any]:
        """Plain numbers."""
        return {
            "bench": "latency",
            "bundle": str(self.path),
            "weights": self.session.manifest.weights,
            "cpu": platform.processor() or platform.machine(),
            "n": len(self.first_sample_ms),
            "first_sample_ms": quantiles(self.first_sample_ms),
            "think_ms_per_row": quantiles(self.think_ms),
            "rtf": quantiles(self.factors),
        }


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, worst."""
    points = np.percentile(values or [np.nan], (50, 95, 99, 100))
    return dict(zip(("p50", "p95", "p99", "max"), points.round(3).tolist(), strict=True))


def import_seconds() -> float:
    """Time to import `antiphon.runtime` in a fresh interpreter, best of three."""
    code = "import time; t = time.perf_counter(); import antiphon.runtime.session; "
    code += "print(time.perf_counter() - t)"
    command = [sys.executable, "-c", code]
    runs = [subprocess.run(command, capture_output=True, check=True).stdout for _ in range(3)]
    return min(map(float, runs))


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--against", type=Path)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    parser.add_argument("--limit", type=int, default=10_000)
    args = parser.parse_args()
    questions = load_index(args.work.expanduser(), "eval")[: args.limit]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    watches = [Stopwatch(p) for p in (args.bundle, args.against) if p]
    for question in tqdm(questions, desc="questions"):
        pcm = read(question, 16000)
        for watch in watches:
            watch.ask(pcm)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts: dict[str, float] = {
        "peak_rss_bytes": peak * 1024,
        "before_loading_bytes": before * 1024,
        "torch_loaded": "torch" in sys.modules,
        "import_s": round(import_seconds(), 3),
    }
    for watch in watches:
        print(json.dumps(watch.row() | facts))


if __name__ == "__main__":
    main()
