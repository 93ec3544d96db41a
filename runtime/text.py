"""The text tokenizer: `tokenizer.json` of the checkpoint, read by the tokenizers library."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from .errors import CorruptFile

_REPLACEMENT = "\ufffd"  # what an incomplete character decodes to
_REWRITES = {"<|empty|>": ".", "<|end_empty|>": ":"}  # contract C.5


class TextTokenizer:
    """Text to ids and back."""

    def __init__(self, path: Path) -> None:
        """Read tokenizer.json. Raises CorruptFile when the library cannot."""
        try:
            self._tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise CorruptFile(
                f"{path.name}: not a tokenizer ({error}); export the bundle again"
            ) from error

    def encode(self, text: str) -> list[int]:
        """Ids of text. Special tokens written in it become their ids; none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens left out."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        for written, meant in _REWRITES.items():
            text = text.replace(written, meant)
        return text


class TextStream:
    """The text of a reply as it grows: characters come out once they are complete."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._ids: list[int] = []
        self._shown = ""

    def push(self, token: int) -> str:
        """Add one id; returns the text that has become certain, possibly none."""
        self._ids.append(token)
        return self._emit(self._tokenizer.decode(self._ids).rstrip(_REPLACEMENT))

    def finish(self) -> str:
        """The rest, an incomplete character shown as �."""
        return self._emit(self._tokenizer.decode(self._ids))

    def _emit(self, text: str) -> str:
        if not text.startswith(self._shown):
            return ""
        new = text[len(self._shown) :]
        self._shown = text
        return new
