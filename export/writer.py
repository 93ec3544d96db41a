"""Write a bundle folder: whole or absent (design §3)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.runtime.errors import BundleError, CapacityError, CorruptFile
from antiphon.runtime.manifest import EngineEntry, FileEntry, Manifest
from antiphon.runtime.onnx_file import read_facts

MANIFEST, JOURNAL = "manifest.json", "journal.json"
_CHUNK_BYTES = 1 << 20


@contextmanager
def new_bundle(out: Path) -> Iterator[Path]:
    """A folder beside `out` that takes its place when the block ends without an error.

    An older bundle at `out` is replaced at that moment and stays as it is until then. After an
    error the folder stays if it has a journal, for the next export to go on with: it may hold
    files when the block begins. Raises BundleError when `out` is anything else than a bundle, or
    another export writes it.
    """
    out = out.absolute()
    _check_replaceable(out)
    with _claimed(partial_folder(out)) as partial:
        _restore(out, partial.with_suffix(".old"))
        yield partial
        _flush(partial)
        _replace(partial, out)


def partial_folder(out: Path) -> Path:
    """Where the bundle `out` is written until it is whole."""
    out = out.absolute()
    return out.with_name(f".{out.name}.partial")


@contextmanager
def _claimed(partial: Path) -> Iterator[Path]:
    """Make `partial` a folder of ours until the block ends; without a journal, then remove it.

    The lock is on the folder itself: it ends with the process, however that ends.
    """
    try:
        partial.mkdir(parents=True, exist_ok=True)
        handle = os.open(partial, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError as error:
        remove = "remove it or " if os.path.lexists(partial) else ""
        raise BundleError(
            f"{partial}: {error.strerror}, expected to write there; {remove}choose another folder"
        ) from error
    try:
        _lock(handle, partial)
        try:
            yield partial
        finally:
            # another path: the bundle is whole, and the next export may have made its own folder
            if _is_at(handle, partial) and not (partial / JOURNAL).is_file():
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(handle)


def _lock(handle: int, partial: Path) -> None:
    busy = BundleError(f"{partial}: another export is writing there; wait for it or stop it")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise busy from None
    except OSError:  # a file system without locks: two exports at once are the user's care
        return
    if not _is_at(handle, partial):
        raise busy  # that export has just ended


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _restore(out: Path, old: Path) -> None:
    """Undo, or finish, a replacement that was interrupted between its two renames."""
    if old.exists() and not out.exists():
        old.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def check_room(folder: Path, needed_bytes: int) -> None:
    """Raise CapacityError unless so much can still be written into `folder`."""
    free = shutil.disk_usage(folder).free
    if free < needed_bytes:
        raise CapacityError(
            f"{folder.parent}: {free / 1e6:,.0f} MB free, the bundle needs up to "
            f"{needed_bytes / 1e6:,.0f} MB more; make room or choose another folder"
        )


def _check_replaceable(out: Path) -> None:
    empty = out.is_dir() and not any(out.iterdir())
    if out.exists() and not empty and not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: exists and is not a bundle; remove it or choose another folder")


def _flush(folder: Path) -> None:
    """Wait until the disk has every file: what is renamed then is whole after a power cut too."""
    for path in (folder, *folder.rglob("*")):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _replace(partial: Path, out: Path) -> None:
    """Put `partial` in the place of `out`; its journal has done its work."""
    _check_replaceable(out)
    (partial / JOURNAL).unlink(missing_ok=True)
    if not out.exists():
        partial.rename(out)
        return
    old = partial.with_suffix(".old")
    out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old)


def file_entry(path: Path, folder: Path) -> FileEntry:
    """Name, hash and size of a finished file inside `folder`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return FileEntry(
        file=path.relative_to(folder).as_posix(),
        sha256=digest.hexdigest(),
        size_bytes=path.stat().st_size,
    )


def engine_entry(
    path: Path, files: Mapping[str, FileEntry], scheme: str, parity: dict[str, float]
) -> EngineEntry:
    """What the manifest says of one graph; `files`, finished ones by name, hold it and its weights.

    Raises CorruptFile if it is not self-contained.
    """
    facts = read_facts(path)
    locations = sorted({entry["location"] for entry in facts.external})
    for location in locations:
        if location not in files:
            raise CorruptFile(f"{path.name}: its weights are said to be in {location!r}")
    return EngineEntry(
        file=files[path.name],
        data=tuple(files[location] for location in locations),
        inputs=tuple(facts.inputs),
        outputs=tuple(facts.outputs),
        scheme=scheme,
        parity=parity,
    )


def save_array(path: Path, array: np.ndarray[Any, Any]) -> Path:
    """Write a .npy file, which the runtime maps into memory."""
    np.save(path, np.ascontiguousarray(array), allow_pickle=False)
    return path


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json`, the last file of a bundle."""
    text = json.dumps(manifest.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / MANIFEST).write_text(text + "\n", encoding="utf-8")
