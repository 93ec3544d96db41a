"""What of a bundle being written is finished, so that the next run need not make it again.

`journal.json` in the half-written folder names the finished parts, each with a key: a digest of all
that decides its bytes. A part counts when its key is the wanted one and its files have the hashes
noted; whatever else lies in the folder is removed.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import CorruptFile
from antiphon.runtime.manifest import FileEntry
from antiphon.runtime.strict import parse

from .writer import JOURNAL, file_entry

_CODE = tuple(Path(__file__).parents[1] / part for part in ("export", "quant"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A finished part."""

    key: str
    files: tuple[FileEntry, ...]
    measures: dict[str, dict[str, float]] = field(default_factory=dict)


class Journal:
    """The finished parts of the bundle in one folder, by name."""

    def __init__(self, folder: Path, keys: Mapping[str, str]) -> None:
        """Keep what is finished and made as `keys` say, and remove everything else."""
        self.folder, self._keys = folder, keys
        found = _read(folder / JOURNAL)
        self.parts = {n: p for n, p in found.items() if keys.get(n) == p.key and self._whole(p)}
        self.outdated = sorted(found.keys() - self.parts.keys())  # were there and are removed
        _clear(folder, {*self.files, *([JOURNAL] if self.parts else [])})
        if self.parts:
            self._save()

    def __contains__(self, part: str) -> bool:
        return part in self.parts

    @property
    def nbytes(self) -> int:
        """Of all finished files."""
        return sum(e.size_bytes for part in self.parts.values() for e in part.files)

    @property
    def files(self) -> dict[str, FileEntry]:
        """Finished files by name."""
        return {e.file: e for part in self.parts.values() for e in part.files}

    def finish(
        self,
        name: str,
        paths: Iterable[Path] = (),
        measures: Mapping[str, dict[str, float]] | None = None,
    ) -> None:
        """Note that a part is finished; its files may not change any more."""
        entries = tuple(file_entry(path, self.folder) for path in paths)
        part = Part(key=self._keys[name], files=entries, measures=dict(measures or {}))
        self.parts[name] = part
        self._save()

    def _whole(self, part: Part) -> bool:
        try:
            return all(file_entry(self.folder / e.file, self.folder) == e for e in part.files)
        except OSError:
            return False

    def _save(self) -> None:
        """Atomically, and the files it speaks of first: no half-written file looks whole."""
        new = self.folder / f"{JOURNAL}.new"
        with new.open("w", encoding="utf-8") as file:
            json.dump({name: asdict(part) for name, part in self.parts.items()}, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self.folder / JOURNAL)


def finished_parts(folder: Path) -> list[str]:
    """Names of the parts noted in a half-written folder, unchecked."""
    return list(_read(folder / JOURNAL))


def _read(path: Path) -> dict[str, Part]:
    """The parts noted; a journal that cannot be read notes nothing."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        parts: dict[str, Part] = parse(dict[str, Part], raw, path.name)
    except (OSError, ValueError, RecursionError, CorruptFile):
        return {}
    return parts


def _clear(folder: Path, kept: set[str]) -> None:
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()


def digest(*facts: Any) -> str:
    """A key made of plain values and of this program's own code."""
    return sha256(json.dumps([_code(), *facts], sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """Digest of the sources that decide what is written: another version begins anew."""
    found = sha256()
    for path in sorted(path for folder in _CODE for path in folder.rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()


def identity(folder: Path) -> list[tuple[str, int, int]]:
    """What tells whether the files of a checkpoint changed: name, size and time of each."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = ((path.relative_to(folder).as_posix(), path.stat()) for path in files)
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]
