"""Libraries that an installation may lack, and the extra that brings each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from antiphon.runtime.errors import ConfigError

_EXTRAS = {"onnx": "export", "safetensors": "export", "torch": "export", "matplotlib": "report"}


@contextmanager
def needed_for(what: str, instead: str = "") -> Iterator[None]:
    """Around imports: raise ConfigError saying that `what` needs a library, and which extra has it.

    instead  what does without it
    A module of ours, or of anybody else, that is not found is a bug, and stays one.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").split(".")[0]
        if library not in _EXTRAS:
            raise
        way_out = f"install it: pip install 'antiphon[{_EXTRAS[library]}]'{instead}"
        raise ConfigError(f"{what} needs {library}; {way_out}") from error
