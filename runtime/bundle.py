"""A folder that holds a whole exported model, opened with suspicion (design §3).

Nothing in it is used before it is checked: `open` refuses a manifest that says too much or too
little, files that are absent, truncated, linked, flipped or outside the folder, tables and graphs
of other sizes than the manifest's, graphs with foreign operators or with weights in unlisted
files. Engines are loaded afterwards. The check protects from bad files, not from a program that
changes the folder while we run.
"""

from __future__ import annotations

import hashlib
import json
import stat
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from .bundle_files import Voice, read_array, read_table, read_voice
from .embeddings import Embeddings
from .engine_check import check_engine
from .errors import BundleError, ConfigError, CorruptFile
from .manifest import ENGINES, OPTIONAL_ENGINES, FileEntry, Manifest

if TYPE_CHECKING:  # loading it takes as long as everything else here
    from .backend import Engine

MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 1 << 20
_TARGET_PROVIDERS = {
    "cpu": ("CPUExecutionProvider",),
    "cuda": ("CUDAExecutionProvider", "CPUExecutionProvider"),
}


class Bundle:
    """An opened bundle: the manifest, and what it describes."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def open(cls, path: Path | str, *, verify: bool = True) -> Self:
        """Check every file of the bundle at `path`, then open it.

        verify   also compare the SHA-256 of every file; without it, sizes only
        Raises BundleError or one of its kinds, naming the file and the way out.
        """
        path = Path(path)
        manifest = read_manifest(path)
        if absent := [name for name in ENGINES if name not in manifest.engines]:
            raise CorruptFile(f"{MANIFEST}: no engine {', '.join(absent)}; export the bundle again")
        if foreign := sorted(manifest.engines.keys() - {*ENGINES, *OPTIONAL_ENGINES}):
            raise CorruptFile(
                f"{MANIFEST}: unknown engine {', '.join(foreign)[:80]}; export the bundle again"
            )
        if not manifest.voices:
            raise CorruptFile(f"{MANIFEST}: no voice; export the bundle again")
        for entry in manifest.files:
            _check_file(path, entry, verify=verify)
        bundle = cls(path, manifest)
        for name in manifest.engines:
            check_engine(path, name, manifest)
        for name in manifest.voices:
            bundle.voice(name)
        _ = bundle.embeddings, bundle.noise
        return bundle

    def engine(
        self, name: str, *, threads: int = 1, exact: bool = False, log_level: int | None = None
    ) -> Engine:
        """Load one engine. exact: float products instead of int8 ones, for parity tests."""
        from .backend import ERROR, Engine

        providers = _TARGET_PROVIDERS.get(self.manifest.target)
        if providers is None:
            raise ConfigError(
                f"{self.path}: engines for target {self.manifest.target!r}, expected one of "
                f"{', '.join(_TARGET_PROVIDERS)}; export the bundle for one of these"
            )
        return Engine.load(
            self.path / self.manifest.engines[name].file.file,
            threads=threads,
            exact=exact,
            providers=providers,
            log_level=ERROR if log_level is None else log_level,
        )

    @cached_property
    def embeddings(self) -> Embeddings:
        """Both embedding tables, memory-mapped."""
        m = self.manifest
        sizes = {"hidden_size": m.lm.hidden_size}
        return Embeddings(
            text=read_table(self.path, m.text_embeddings, rows=m.lm.text_vocab, **sizes),
            audio=read_table(self.path, m.audio_embeddings, rows=m.lm.audio_vocab, **sizes),
            modality_pad=m.tokens.modality_pad,
        )

    @cached_property
    def noise(self) -> NDArray[np.float32]:
        """The flow's start noise [M, T], by absolute frame (contract E.6), memory-mapped."""
        noise = read_array(self.path / self.manifest.noise.file)
        if noise.ndim != 2 or len(noise) != self.manifest.flow.mel_bins or noise.dtype != "f4":
            raise CorruptFile(
                f"{self.manifest.noise.file}: {noise.dtype}{list(noise.shape)}, expected float32 "
                f"[{self.manifest.flow.mel_bins}, T]; export the bundle again"
            )
        return noise

    @property
    def tokenizer_path(self) -> Path:
        """The text tokenizer's file, for `TextTokenizer`."""
        return self.path / self.manifest.tokenizer.file

    @property
    def voices(self) -> list[str]:
        """Names of the voices, the default one first."""
        return list(self.manifest.voices)

    def voice(self, name: str | None = None) -> Voice:
        """One voice; the first one unless named."""
        name = self.voices[0] if name is None else name
        if name not in self.manifest.voices:
            raise ConfigError(f"no voice {name!r} here; choose one of {', '.join(self.voices)}")
        m = self.manifest
        return read_voice(self.path / m.voices[name].file, m.flow, m.encoder.code_count)


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, parsed and checked; no other file is looked at. Errors as `open`."""
    path = folder / MANIFEST
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_MANIFEST_BYTES:
            raise CorruptFile(
                f"{MANIFEST}: {status.st_size} bytes, mode {status.st_mode:o}; expected a plain "
                f"file of at most {_MAX_MANIFEST_BYTES} bytes; export the bundle again"
            )
        raw = json.loads(path.read_bytes(), object_pairs_hook=_unique, parse_constant=_no_constant)
    except OSError as error:
        raise BundleError(
            f"{folder}: no bundle here ({error.strerror}: {MANIFEST}); name the folder that "
            "`antiphon export` wrote"
        ) from error
    except (ValueError, RecursionError) as error:
        raise CorruptFile(f"{MANIFEST}: not JSON ({error}); export the bundle again") from error
    if not isinstance(raw, dict):
        raise CorruptFile(f"{MANIFEST}: not a JSON object; export the bundle again")
    return Manifest.from_dict(raw)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is stated twice")
    return found


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is not a number of JSON")


def _check_file(folder: Path, entry: FileEntry, *, verify: bool) -> None:
    """Raise CorruptFile unless `entry` is a plain file in the folder with the stated bytes."""
    path = folder
    try:
        for part in Path(entry.file).parts:
            path = path / part
            status = path.lstat()
            if stat.S_ISLNK(status.st_mode):
                raise CorruptFile(
                    f"{entry.file}: {part} is a link, expected a plain file inside the bundle; "
                    "copy the file itself"
                )
        if not stat.S_ISREG(status.st_mode) or status.st_size != entry.size_bytes:
            raise CorruptFile(
                f"{entry.file}: {status.st_size} bytes, expected a file of {entry.size_bytes}; "
                "copy or export the bundle again"
            )
        if verify:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != entry.sha256:
                raise CorruptFile(
                    f"{entry.file}: sha256 {digest[:16]}… does not match the manifest "
                    f"({entry.sha256[:16]}…); copy or export the bundle again"
                )
    except OSError as error:
        raise CorruptFile(
            f"{entry.file}: {error.strerror}, expected a file of {entry.size_bytes} bytes; "
            "copy or export the bundle again"
        ) from error
