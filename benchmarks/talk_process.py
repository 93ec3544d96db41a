"""`antiphon talk` as a person runs it: its own process, keys on stdin, everything saved."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

READY = "q: quit"
PATIENCE_S = 60.0


class TalkProcess:
    """A context; `turns` tells what it has written so far. Its files go with it."""

    def __init__(self, bundle: Path, options: Sequence[str] = ()) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="talk-"))
        self._errors = (self.folder / "stderr.txt").open("wb")
        command = [sys.executable, "-m", "antiphon.apps.cli", "talk", "--bundle", str(bundle)]
        self.process = subprocess.Popen(
            [*command, "--save", str(self.folder), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=self._errors,
        )

    def __enter__(self) -> Self:
        deadline = time.monotonic() + PATIENCE_S
        while READY not in self.said():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"antiphon talk did not start: {self.said()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.press("q")
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self._errors.close()
            shutil.rmtree(self.folder, ignore_errors=True)

    def press(self, key: str) -> None:
        """As a person at the keyboard."""
        assert self.process.stdin is not None
        self.process.stdin.write(key.encode())
        self.process.stdin.flush()

    def said(self) -> str:
        """Everything it has written to the terminal."""
        return (self.folder / "stderr.txt").read_text(errors="replace")

    def turns(self, last: int | None = None) -> list[dict[str, Any]]:
        """The exchanges that are over: all, or the last so many."""
        path = self.folder / "turns.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines[-last if last else None :]]

    def events(self, since: float = 0.0, last: int | None = None) -> list[dict[str, Any]]:
        """The events of these exchanges after a reading of the clock."""
        found = [event for turn in self.turns(last) for event in turn["events"]]
        return [event for event in found if event["clock"] >= since]

    def rss_bytes(self) -> int:
        """Resident memory now."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (row for row in status.splitlines() if row.startswith("VmRSS"))
        return int(line.split()[1]) * 1024
