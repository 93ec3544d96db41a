"""Files that a measuring command writes its results to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import ConfigError


def check_writable(*paths: Path | None) -> None:
    """Raise ConfigError, before the work, for a file that could not be written after it."""
    for path in filter(None, paths):
        if not path.absolute().parent.is_dir():
            raise ConfigError(f"{path}: there is no folder {path.parent}; make it, or name another")
        place = path if path.exists() else path.absolute().parent
        if path.is_dir() or not os.access(place, os.W_OK):
            raise ConfigError(f"{path}: cannot be written; name a file where you may write")


def make_folder(path: Path | None) -> None:
    """Make a folder for results, before the work. Raises ConfigError where it cannot be written."""
    if path is None:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        check_writable(path / "any")
    except (OSError, ConfigError) as error:
        raise ConfigError(
            f"{path}: cannot be written; name a folder where you may write"
        ) from error


def write_json(path: Path, value: Any) -> None:
    """All numbers, readable; whole or not at all."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    part = path.with_name(f".{os.getpid()}-{path.name}.part")
    try:
        part.write_text(text + "\n", encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
