"""The text tokenizer: `tokenizer.json` of the checkpoint, read by the tokenizers library.

The library adds nothing and cuts nothing here: no start-of-text, no truncation or padding that the
file may ask for. Text of the templates may name special tokens, text of turns may not (J.4, C.5).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from .errors import CorruptFile

_REPLACEMENT = "\ufffd"  # what an incomplete character decodes to
_REWRITES = {"<|empty|>": ".", "<|end_empty|>": ":"}  # contract C.5


class TextTokenizer:
    """Text to ids and back. Qwen3's takes a second to read, so its vocabulary is held once."""

    def __init__(self, path: Path) -> None:
        """Read tokenizer.json. Raises CorruptFile when the library cannot."""
        try:
            self._tokenizer = Tokenizer.from_str(path.read_text(encoding="utf-8"))
        except Exception as error:  # the library raises bare Exception
            raise CorruptFile(
                f"{path.name}: not a tokenizer ({error}); export the bundle again"
            ) from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._plain = Tokenizer(self._tokenizer.model)  # the same vocabulary, no added tokens
        self._plain.normalizer = self._tokenizer.normalizer
        self._plain.pre_tokenizer = self._tokenizer.pre_tokenizer

    @property
    def id_count(self) -> int:
        """Every id is below it."""
        return 1 + max(self._tokenizer.get_vocab().values(), default=-1)

    def encode(self, text: str) -> list[int]:
        """Ids of text. Special tokens written in it become their ids; none are added."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def encode_plain(self, text: str) -> list[int]:
        """Ids of text that others wrote: no token written in it is more than its characters."""
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens left out and two placeholders rewritten (contract C.5)."""
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
        text = self._tokenizer.decode(self._ids).rstrip(_REPLACEMENT)
        return self._emit(text[: len(text) - _uncertain(text)])

    def finish(self) -> str:
        """The rest, an incomplete character shown as �."""
        return self._emit(self._tokenizer.decode(self._ids))

    def _emit(self, text: str) -> str:
        if self._shown.startswith(text):
            return ""
        # what was shown stays, even where it has changed since
        pairs = enumerate(zip(text, self._shown, strict=False))
        same = next((i for i, (new, old) in pairs if new != old), len(self._shown))
        self._shown = text
        return text[same:]


def _uncertain(text: str) -> int:
    """Length of the end of `text` that may become something else: a rewrite's beginning."""
    starts = (key[:n] for key in _REWRITES for n in range(1, len(key)))
    return max((len(start) for start in starts if text.endswith(start)), default=0)
