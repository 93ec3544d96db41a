"""Speak a set: `python -m nano.data.make SET --work DIR [--jobs N]`.

Resumable: finished files are kept, a file appears under its name only when whole, and its line
in `index.jsonl` only after that. One process appends to the index, the workers only speak.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import soundfile
from tqdm import tqdm

from .accents import CheapVoices
from .audio import Pcm, limit, trim, write_flac
from .plan import SETS, Item
from .teacher import RATE_HZ, MissingAssetError, Teacher

DEFAULT_WORK = "~/.cache/antiphon-nano"
Speak = Callable[[Item], tuple[Pcm, int]]  # speech [S] and its rate in hertz

_speak: Speak  # of a worker process, set once by `_start_worker`


def _speaker(set_name: str, work: Path) -> Speak:
    """The engine of a set."""
    if set_name == "accents":
        cheap = CheapVoices()
        return lambda item: cheap.speak(item.text, item.voice, item.speed)
    teacher = Teacher(work)
    return lambda item: (teacher.speak(item.text, item.voice, item.speed), RATE_HZ)


def _start_worker(set_name: str, work: Path) -> None:
    global _speak
    _speak = _speaker(set_name, work)


def _make(task: tuple[Item, Path]) -> Item:
    """Speak one item into its file."""
    item, path = task
    pcm, rate_hz = _speak(item)
    write_flac(path, limit(trim(pcm, rate_hz)), rate_hz)
    return item


def _record(item: Item, path: Path) -> str:
    """The index line of a finished file."""
    info = soundfile.info(path)
    line: dict[str, Any] = {
        "file": path.name,
        "text": item.text,
        "meaning": item.meaning,
        "voice": item.voice,
        "rate": info.samplerate,
        "samples": info.frames,
        "split": item.split,
    }
    return json.dumps(line) + "\n"


def read_index(folder: Path) -> list[dict[str, Any]]:
    """Lines of a set's index; a last line torn by an interruption is left out."""
    path = folder / "index.jsonl"
    lines = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _repair_index(folder: Path) -> set[str]:
    """Rewrite the index without a torn last line; returns the files it names."""
    lines = read_index(folder)
    partial = folder / "index.part"
    partial.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    partial.replace(folder / "index.jsonl")
    return {line["file"] for line in lines}


def make_set(set_name: str, work: Path, jobs: int, limit_items: int | None = None) -> int:
    """Speak what is missing of the first `limit_items` of a set; returns how many were made."""
    folder = work / "data" / set_name
    folder.mkdir(parents=True, exist_ok=True)
    indexed = _repair_index(folder)
    items = list(SETS[set_name]())[:limit_items]
    if set_name == "accents":
        items = CheapVoices().available(items)
    tasks = [(item, folder / f"{item.name}.flac") for item in items]
    missing = [(item, path) for item, path in tasks if not path.exists()]
    context = multiprocessing.get_context("spawn")
    with (folder / "index.jsonl").open("a", encoding="utf-8", buffering=1) as index:
        for item, path in tasks:  # finished just before an interruption
            if path.exists() and path.name not in indexed:
                index.write(_record(item, path))
        if not missing:
            return 0
        _speaker(set_name, work)  # here first: a worker that cannot start is restarted for ever
        with context.Pool(min(jobs, len(missing)), _start_worker, (set_name, work)) as pool:
            done = pool.imap_unordered(_make, missing)
            for item in tqdm(done, desc=set_name, total=len(missing), mininterval=2):
                index.write(_record(item, folder / f"{item.name}.flac"))
    return len(missing)


def main(arguments: list[str] | None = None) -> int:
    """Command line; 0 when the set is complete, 1 when something it needs is missing."""
    parser = argparse.ArgumentParser(prog="nano.data.make", description=__doc__)
    parser.add_argument("set", choices=sorted(SETS))
    parser.add_argument("--work", type=Path, default=Path(DEFAULT_WORK), metavar="DIR")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N of the plan")
    options = parser.parse_args(arguments)
    try:
        make_set(options.set, options.work.expanduser(), options.jobs, options.limit)
    except MissingAssetError as error:
        sys.stderr.write(f"nano.data.make: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
