"""The questions that `antiphon eval` and `antiphon sensitivity` ask."""

from __future__ import annotations

from pathlib import Path

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError

from . import audio_file, questions, recordings
from .audio_file import Pcm

Listed = tuple[str, Path, str | None]  # name, recording, what is said in it if that is known


def load(
    folder: Path | None, bundle: Bundle, limit: int | None
) -> list[tuple[str, Pcm, str | None]]:
    """Name, samples [S] at the encoder's rate, and text of each; at most `limit` of them.

    folder   recordings, wav or flac, searched below it too. What is said in them is known where
             it has the index of a bundle's questions or that of `recordings`, or NAME.txt beside
             NAME.wav. None: the questions in the bundle
    Raises ConfigError without any, AudioError for a recording that cannot be used.
    """
    listed = _list(bundle.path / questions.FOLDER if folder is None else folder)
    if not listed:
        raise ConfigError(f"{folder}: no wav or flac recording here; name another --questions DIR")
    rate = bundle.manifest.encoder.sample_rate_hz
    return [
        (name, audio_file.read(audio_file.inspect(path), rate), text)
        for name, path, text in listed[:limit]
    ]


def _list(folder: Path) -> list[Listed]:
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no folder of recordings; name one with --questions DIR")
    if (folder / questions.INDEX).is_file():
        return [(q.name, q.path, q.text) for q in questions.load_folder(folder)]
    if (folder / recordings.INDEX).is_file():
        return [(r.name, r.path, r.text) for r in recordings.find(folder)]
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in recordings.SOUNDS)
    return [(path.stem, path, _beside(path)) for path in paths]


def _beside(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    return text.read_text(encoding="utf-8", errors="replace").strip() if text.is_file() else None
