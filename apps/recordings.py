"""A folder of recordings and what is said in them.

    NAME.flac or NAME.wav    the sound; of several channels the first
    index.jsonl              a line for each: {"file": "NAME.flac", "text": "What is said."}
    NAME.txt                 or, without an index, the text in a file beside each recording
    questions.json           or the index of a bundle's recorded questions

Other keys of a line mean nothing here. The order is that of the index, else that of the names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import AudioError, ConfigError, CorruptFile

from . import questions

INDEX = "index.jsonl"
SOUNDS = (".flac", ".wav")
_LONGEST_TEXT = 10_000  # characters


@dataclass(frozen=True, slots=True)
class Spoken:
    """One recording, unread, and the words said in it."""

    name: str
    path: Path
    text: str


def find(folder: Path) -> list[Spoken]:
    """All recordings of a folder. Raises ConfigError, AudioError or CorruptFile, naming it."""
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; name one of recordings (wav or flac)")
    index = folder / INDEX
    if index.is_file():
        found = _indexed(index)
    elif (folder / questions.INDEX).is_file():
        found = [Spoken(q.name, q.path, q.text) for q in questions.load_folder(folder)]
    else:
        found = _beside(folder)
    if not found:
        raise ConfigError(
            f"{folder}: no recordings with texts; expected NAME.flac or NAME.wav with {INDEX} "
            "or NAME.txt"
        )
    for spoken in found:
        if not spoken.path.is_file():
            raise AudioError(f"{spoken.path}: missing, though the index names it; copy it again")
    return found


def _indexed(index: Path) -> list[Spoken]:
    try:
        lines = index.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise CorruptFile(f"{index}: cannot be read ({error})") from error
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    return [_entry(index, number, line) for number, line in numbered]


def _entry(index: Path, number: int, line: str) -> Spoken:
    expected = '{"file": "NAME.flac", "text": "What is said."}'
    try:
        raw: Any = json.loads(line)
        file, text = raw["file"], raw["text"]
        if Path(file).name != file or Path(file).suffix.lower() not in SOUNDS:
            raise ValueError(f"{file!r} is not the name of a wav or flac file beside it")
        return Spoken(Path(file).stem, index.parent / file, _text(text))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise CorruptFile(f"{index}, line {number}: {error!s:.200}; expected {expected}") from error


def _beside(folder: Path) -> list[Spoken]:
    found = []
    for path in sorted(p for p in folder.iterdir() if p.suffix.lower() in SOUNDS):
        text = path.with_suffix(".txt")
        if not text.is_file():
            raise ConfigError(
                f"{path}: what is said in it? write it into {text.name}, or list all recordings "
                f"in {INDEX}"
            )
        try:
            found.append(Spoken(path.stem, path, _text(text.read_text(encoding="utf-8"))))
        except (OSError, ValueError) as error:
            raise CorruptFile(f"{text}: no text ({error}); expected what is said, UTF-8") from error
    return found


def _text(raw: Any) -> str:
    """Raises ValueError unless it is words."""
    if not isinstance(raw, str) or not raw.strip() or len(raw) > _LONGEST_TEXT:
        raise ValueError(f"the text is {raw!r:.80}, expected 1 to {_LONGEST_TEXT} characters")
    return raw.strip()
