"""`python -m benchmarks.export_real_size`: time, memory and disk that `antiphon export` takes.

The checkpoint is one of the published sizes, real or from `python -m benchmarks.lookalike OUT
--real-size --voice`. Its files are first dropped from the system's cache, and read once as fast
as the disk gives them, then dropped again: so the time that reading alone takes is known.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .machine import save
from .process import Process, Usage

LANGUAGE = ("trunk", "speech_branch", "text_branch", "tables")
GOALS = {"language_model_peak_gb": 1.0, "int4_minutes": 5.0}
SAMPLE_S = 0.05
_STEP = re.compile(r"(\d+)/(\d+) (\w+)")  # a line of the command on stderr
_PROBE_BYTES = 4 << 30
_CHUNK = 16 << 20


@dataclass(slots=True)
class Phase:
    """One part of the export."""

    name: str
    began: float
    before: Usage
    last: Usage
    ended: float = 0.0
    samples: int = 0
    waits: int = 0

    def add(self, usage: Usage) -> None:
        """Another look at the process."""
        self.last, self.samples, self.waits = usage, self.samples + 1, self.waits + usage.waiting

    def summary(self) -> dict[str, Any]:
        """For the result."""
        a, b = self.before, self.last
        return {
            "part": self.name,
            "seconds": round(self.ended - self.began, 2),
            "cpu_seconds": round(b.cpu_s - a.cpu_s, 2),
            "peak_gb": round(b.peak_bytes / 1e9, 3),
            "read_gb": round((b.read_bytes - a.read_bytes) / 1e9, 3),
            "written_gb": round((b.written_bytes - a.written_bytes) / 1e9, 3),
            "waiting_for_disk": round(self.waits / max(1, self.samples), 3),
        }


class Watch:
    """Looks at a process all the time, phase by phase, until it ends."""

    def __init__(self, pid: int) -> None:
        self._process, self._lock, self._over = Process(pid), threading.Lock(), threading.Event()
        usage = self._process.usage()
        self.phases = [Phase("start", time.perf_counter(), usage, usage)]
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def phase(self, name: str) -> None:
        """Another part begins."""
        with self._lock:
            now, usage = time.perf_counter(), self._process.usage()
            self.phases[-1].add(usage)
            self.phases[-1].ended = now
            self._process.forget_peak()
            self.phases.append(Phase(name, now, usage, usage))

    def close(self) -> list[dict[str, Any]]:
        """The process has ended."""
        self._over.set()
        self._thread.join()
        self.phases[-1].ended = time.perf_counter()
        return [phase.summary() for phase in self.phases]

    def _look(self) -> None:
        while not self._over.wait(SAMPLE_S):
            with self._lock:
                try:
                    self.phases[-1].add(self._process.usage())
                except (OSError, KeyError):  # it has just ended
                    return


def drop_cache(folder: Path) -> int:
    """Make the next read of every file come from the disk; returns their bytes."""
    total = 0
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
            total += os.fstat(handle).st_size
        finally:
            os.close(handle)
    return total


def disk_bytes_per_s(folder: Path) -> float:
    """How fast the checkpoint's first gigabytes come from the disk, read in order."""
    drop_cache(folder)
    buffer, done, start = bytearray(_CHUNK), 0, time.perf_counter()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb", buffering=0) as file:
            while done < _PROBE_BYTES and (count := file.readinto(buffer)):
                done += count
    return done / (time.perf_counter() - start)


def export(checkpoint: Path, out: Path, weights: str, options: list[str]) -> dict[str, Any]:
    """Run the command once and watch it."""
    size, start = drop_cache(checkpoint), time.perf_counter()
    command = [sys.executable, "-m", "antiphon.apps.cli", "export", str(checkpoint), str(out)]
    command += ["--weights", weights, *options]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        watch, said = Watch(process.pid), []
        for line in process.stderr:
            said.append(line.strip())
            if step := _STEP.match(line):
                watch.phase(step[3])
        status = process.wait()
        phases = watch.close()
    if status:
        raise SystemExit("\n".join([f"export ended with {status}:", *said[-5:]]))
    return {
        "weights": weights,
        "options": options,
        "checkpoint_gb": round(size / 1e9, 2),
        "bundle_gb": round(sum(p.stat().st_size for p in out.rglob("*") if p.is_file()) / 1e9, 2),
        "seconds": round(time.perf_counter() - start, 1),
        "language_model": _sum([p for p in phases if p["part"] in LANGUAGE]),
        "all": _sum(phases),
        "parts": phases,
        "notes": [line for line in said if not _STEP.match(line)],
    }


def _sum(phases: list[dict[str, Any]]) -> dict[str, float]:
    keys = ("seconds", "cpu_seconds", "read_gb", "written_gb")
    found = {key: round(sum(phase[key] for phase in phases), 2) for key in keys}
    return found | {"peak_gb": max((phase["peak_gb"] for phase in phases), default=0.0)}


def _with_disk(found: dict[str, Any], bytes_per_s: float) -> dict[str, Any]:
    """How much of the time the disk alone would have taken."""
    found["disk_read_gb_per_s"] = round(bytes_per_s / 1e9, 2)
    for part in (found["language_model"], found["all"]):
        reading = part["read_gb"] * 1e9 / bytes_per_s
        part |= {
            "reading_alone_seconds": round(reading, 1),
            "reading_share": round(reading / max(part["seconds"], 1e-9), 3),
        }
    return found


def _line(found: dict[str, Any]) -> str:
    lm, rest = found["language_model"], found["all"]
    return (
        f"{found['weights']}: language model {lm['seconds']:.0f} s, peak {lm['peak_gb']:.2f} GB, "
        f"{lm['read_gb']:.1f} GB read (alone {lm['reading_alone_seconds']:.0f} s), "
        f"{lm['cpu_seconds']:.0f} s of processor; all {rest['seconds']:.0f} s, peak "
        f"{rest['peak_gb']:.2f} GB, bundle {found['bundle_gb']} GB"
    )


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.export_real_size")
    add = parser.add_argument
    add("checkpoint", type=Path)
    add("out", type=Path, help="folder for the bundles, OUT/RECIPE each")
    add("--weights", nargs="+", default=["int4", "int8"], metavar="RECIPE")
    add("--jobs", type=int, default=2, help="threads that convert (default: 2)")
    add("--parity", action="store_true", help="also measure parity, as an export normally does")
    add("--keep", nargs="*", default=[], metavar="RECIPE", help="bundles to keep (default: none)")
    add("--result", type=Path, help="default: benchmarks/results/export_real_size.json")
    args = parser.parse_args(argv)
    options = ["--jobs", str(args.jobs), *([] if args.parity else ["--no-parity"])]
    runs = []
    for weights in args.weights:
        bundle, bytes_per_s = args.out / weights, disk_bytes_per_s(args.checkpoint)
        runs.append(_with_disk(export(args.checkpoint, bundle, weights, options), bytes_per_s))
        print(_line(runs[-1]), flush=True)
        if weights not in args.keep:
            shutil.rmtree(bundle)
    print(save("export_real_size", {"goals": GOALS, "runs": runs}, args.result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
