"""The recorded questions that may lie in a bundle: `questions/questions.json` and NAME.flac.

    {"two_plus_two": {"text": "What is two plus two?", "reply": "Two plus two is four."}, ...}

The order is the order in the file; `reply`, what a right answer says, may be left out.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antiphon.runtime.errors import ConfigError, CorruptFile

FOLDER, INDEX = "questions", "questions.json"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")


@dataclass(frozen=True, slots=True)
class Question:
    """One recording, what is said in it, and what a right answer says."""

    name: str
    path: Path
    text: str
    reply: str | None = None


def load(bundle: Path) -> list[Question]:
    """All questions of a bundle. Raises BundleError or ConfigError, naming the way out."""
    return load_folder(bundle / FOLDER)


def load_folder(folder: Path) -> list[Question]:
    """The questions that `folder` has an index of. Errors as `load`."""
    index = folder / INDEX
    try:
        raw = json.loads(index.read_bytes())
        return [_question(folder, name, entry) for name, entry in raw.items()]
    except FileNotFoundError as error:
        raise ConfigError(
            f"{folder}: no recorded questions here; ask your own: antiphon reply QUESTION.wav "
            "REPLY.wav"
        ) from error
    except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
        raise CorruptFile(f"{index}: not a list of questions ({error}); copy it again") from error


def find(questions: list[Question], word: str | None) -> Question:
    """The question with that name or number, counted from 1; the first one unless named."""
    if not questions:
        raise ConfigError("no recorded questions here; ask your own with antiphon reply")
    if word is None:
        return questions[0]
    for number, question in enumerate(questions, 1):
        if word in (str(number), question.name):
            return question
    raise ConfigError(f"no question {word!r}; expected 1 to {len(questions)} or a name, see --list")


def _question(folder: Path, name: str, entry: Any) -> Question:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no plain name")
    reply = entry.get("reply")
    if not isinstance(entry["text"], str) or not isinstance(reply, str | None):
        raise ValueError(f"{name}: text and reply are no strings")
    return Question(name, folder / f"{name}.flac", entry["text"], reply)
