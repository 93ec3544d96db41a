"""What the system says of a running process: memory, processor time, bytes to and from the disk."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """Totals since the process began, except the peak: since that was last forgotten."""

    peak_bytes: int = 0  # of resident memory
    cpu_s: float = 0.0
    read_bytes: int = 0  # that had to come from the disk
    written_bytes: int = 0  # that have to go there
    waiting: bool = False  # for the disk, no thread running


class Process:
    """One process of ours."""

    def __init__(self, pid: int | str = "self") -> None:
        self._folder = Path("/proc") / str(pid)

    def usage(self) -> Usage:
        """Now. Raises OSError when the process is gone."""
        words = (self._folder / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        io = self._numbers("io")
        states = self._states()
        return Usage(
            peak_bytes=self._numbers("status")["VmHWM"] << 10,
            cpu_s=(int(words[11]) + int(words[12])) / _TICKS,
            read_bytes=io["read_bytes"],
            written_bytes=io["write_bytes"],
            waiting="D" in states and "R" not in states,
        )

    def memory(self) -> dict[str, float]:
        """Resident memory now in GiB: all of it, what is its own, and its peak."""
        held = self._numbers("smaps_rollup") | self._numbers("status")
        wanted = {"resident": "Rss", "anonymous": "Anonymous", "peak": "VmHWM"}
        return {f"{name}_gib": round(held[key] / (1 << 20), 3) for name, key in wanted.items()}

    def forget_peak(self) -> None:
        """Let the peak begin anew from what is resident now."""
        (self._folder / "clear_refs").write_text("5")

    def _states(self) -> set[str]:
        found = set()
        for task in (self._folder / "task").iterdir():
            try:
                stat = (task / "stat").read_text("ascii", "replace")
            except OSError:  # a thread that has just ended
                continue
            found.add(stat.rpartition(")")[2].split()[0])
        return found

    def _numbers(self, name: str) -> dict[str, int]:
        """The lines `key: number` of a file."""
        found = {}
        for line in (self._folder / name).read_text("ascii", "replace").splitlines():
            key, colon, value = line.partition(":")
            first = value.split()[:1]
            if colon and first and first[0].isdecimal():
                found[key] = int(first[0])
        return found
