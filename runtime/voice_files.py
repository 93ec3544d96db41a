"""Add voices to a bundle, remove them, choose the default: each at once or not at all.

A voice counts when the manifest names it. Adding therefore writes its file first and the manifest
last, removing goes the other way round, and the manifest is replaced in one step: whoever is
interrupted leaves a bundle that `Bundle.open` accepts, at worst with a file that nobody reads.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from .bundle import MANIFEST, read_manifest
from .bundle_files import Voice, read_voice
from .errors import BundleError, ConfigError, CorruptFile
from .manifest import FileEntry, Manifest

VOICES = "voices"  # the folder


def _entry(name: str, data: bytes) -> FileEntry:
    """Where the voice `name` is kept. Raises ConfigError when it cannot be a name."""
    digest = hashlib.sha256(data).hexdigest()
    try:
        return FileEntry(file=f"{VOICES}/{name}.npz", sha256=digest, size_bytes=len(data))
    except CorruptFile as error:
        raise ConfigError(
            f"{name!r:.120} cannot name a voice; use at most 90 letters, digits, dots, hyphens and "
            "underscores, a letter or digit first"
        ) from error


def check_free(name: str, known: Iterable[str]) -> None:
    """Raise ConfigError unless a voice of that name can stand beside `known`.

    Case does not tell names apart: on some file systems it does not tell files apart.
    """
    _entry(name, b"")
    if same := [other for other in known if other.lower() == name.lower()]:
        raise ConfigError(
            f"there is a voice {same[0]!r} already; remove it first or choose another name"
        )


def add_voice(folder: Path, name: str, voice: Voice, *, default: bool = False) -> Manifest:
    """Write `voice` into the bundle at `folder`; returns the new manifest.

    default   put it first: it then speaks when no voice is named
    Raises ConfigError for the name, CorruptFile for a voice that does not fit the bundle,
    BundleError when the folder cannot be written.
    """
    with _editing(folder) as manifest:
        check_free(name, manifest.voices)
        data = _packed(voice)
        entry = _entry(name, data)
        (folder / VOICES).mkdir(exist_ok=True)
        _refuse_link(folder / VOICES)
        with _replacing(folder / entry.file, data) as partial:
            read_voice(partial, manifest.flow, manifest.encoder.code_count)
        added = {name: entry}
        voices = added | manifest.voices if default else manifest.voices | added
        return _save(folder, replace(manifest, voices=voices))


def remove_voice(folder: Path, name: str) -> Manifest:
    """Take the voice out of the bundle and delete its file; returns the new manifest.

    Raises ConfigError for an unknown voice and for the default one, BundleError when the folder
    cannot be written.
    """
    with _editing(folder) as manifest:
        _check_known(name, manifest)
        if len(manifest.voices) == 1:
            raise ConfigError(
                f"{name!r} is the only voice, and a bundle needs one; add another one first"
            )
        if name == next(iter(manifest.voices)):
            raise ConfigError(
                f"{name!r} is the default voice; choose another one first: "
                "antiphon voice default NAME"
            )
        voices = dict(manifest.voices)
        entry = voices.pop(name)
        manifest = _save(folder, replace(manifest, voices=voices))
        if entry.file not in {kept.file for kept in manifest.files}:
            with suppress(OSError):  # the bundle is right without it
                (folder / entry.file).unlink()
        return manifest


def set_default_voice(folder: Path, name: str) -> Manifest:
    """Put the voice first; returns the new manifest. Errors as `remove_voice`."""
    with _editing(folder) as manifest:
        _check_known(name, manifest)
        voices = {name: manifest.voices[name]} | manifest.voices
        return _save(folder, replace(manifest, voices=voices))


def set_quality(folder: Path, quality: dict[str, str | int | float]) -> Manifest:
    """State what an evaluation found; returns the new manifest.

    Raises BundleError when the folder cannot be written.
    """
    with _editing(folder) as manifest:
        return _save(folder, replace(manifest, quality=quality))


def save_manifest(manifest: Manifest, folder: Path) -> None:
    """Write `manifest.json` in one step."""
    text = json.dumps(manifest.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    with _replacing(folder / MANIFEST, (text + "\n").encode()):
        pass


def _save(folder: Path, manifest: Manifest) -> Manifest:
    save_manifest(manifest, folder)
    return manifest


def _check_known(name: str, manifest: Manifest) -> None:
    if name not in manifest.voices:
        raise ConfigError(f"no voice {name!r} here; choose one of {', '.join(manifest.voices)}")


@contextmanager
def _editing(folder: Path) -> Iterator[Manifest]:
    """The manifest, with nobody else changing the bundle until the block ends."""
    manifest = read_manifest(folder)
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            _lock(handle)
            yield read_manifest(folder)
        finally:
            os.close(handle)
    except OSError as error:
        raise BundleError(
            f"{folder}: {manifest.name} cannot be changed ({error.strerror or error}); copy the "
            "bundle to a folder you may write to, and name that one"
        ) from error


def _lock(handle: int) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:  # a file system without locks: two changes at once are the user's care
        return


@contextmanager
def _replacing(path: Path, data: bytes) -> Iterator[Path]:
    """Write `data` beside `path`, on disk for sure; after the block it takes the place of `path`.

    When the block raises, `path` stays what it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    handle = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _refuse_link(folder: Path) -> None:
    if folder.is_symlink():
        raise CorruptFile(
            f"{folder.name} is a link, expected a folder inside the bundle; copy the folder itself"
        )


def _packed(voice: Voice) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **asdict(voice))
    return buffer.getvalue()
