"""What a measurement was taken on: processor, memory, versions, and how fast memory is read."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).parent / "results"
LIBRARIES = ("numpy", "onnxruntime")
_INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8")
_READ_BYTES = 1 << 30  # several times the largest cache


def describe() -> dict[str, Any]:
    """Processor, memory and versions; nothing that names a machine."""
    cpu = _proc("/proc/cpuinfo", ("model name", "cache size", "flags"))
    flags = cpu.get("flags", "").split()
    memory = _proc("/proc/meminfo", ("MemTotal",)).get("MemTotal", "0 kB")
    return {
        "cpu": cpu.get("model name", platform.machine()),
        "cpus": len(os.sched_getaffinity(0)),
        "cache": cpu.get("cache size", "unknown"),
        "instructions": [flag for flag in _INSTRUCTIONS if flag in flags],
        "memory_gb": round(int(memory.split()[0]) * 1024 / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in LIBRARIES},
    }


def _proc(path: str, keys: Sequence[str]) -> dict[str, str]:
    """The first value of each key in a file of `key : value` lines."""
    found: dict[str, str] = {}
    for line in Path(path).read_text("ascii", "replace").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in keys:
            found.setdefault(key.strip(), value.strip())
    return found


class MemoryReader:
    """Reads a buffer too large for any cache: the fastest that weights could be read."""

    def __init__(self, nbytes: int = _READ_BYTES) -> None:
        self._buffer = np.ones(nbytes // 4, np.float32)

    def bytes_per_s(self, threads: int, repeats: int = 3) -> float:
        """The best of some passes, each thread reading a part of the buffer of its own."""
        parts = np.array_split(self._buffer, threads)
        with ThreadPoolExecutor(threads) as pool:
            best = min(self._seconds(pool, parts) for _ in range(repeats))
        return self._buffer.nbytes / best

    @staticmethod
    def _seconds(pool: ThreadPoolExecutor, parts: Iterable[Any]) -> float:
        start = time.perf_counter()
        list(pool.map(np.max, parts))
        return time.perf_counter() - start


def percentiles(values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Least, median, 95th percentile and greatest."""
    found = np.percentile(values, [0, 50, 95, 100])
    return dict(zip(("min", "p50", "p95", "max"), map(float, found.round(digits)), strict=True))


def save(name: str, result: dict[str, Any], path: Path | None = None) -> Path:
    """Write a result with its machine and date as JSON, by default among those kept."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    stated = {"benchmark": name, "date": time.strftime("%Y-%m-%d"), "machine": describe()}
    text = json.dumps(stated | result, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", "utf-8")
    return path
