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
    """All numbers, readable."""
    text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
