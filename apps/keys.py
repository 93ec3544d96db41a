"""Single key presses, without waiting for Enter and without leaving the terminal changed."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

END = "\x04"  # what Ctrl-D sends; also stands for the end of an input that is no terminal
_DEADLY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SEQUENCE = re.compile(r"\x1b(\[[0-?]*[ -/]*[@-~]|O.)?")  # what other than plain keys send


@contextmanager
def keyboard(fd: int | None = None) -> Iterator[Callable[[], str]]:
    """Yields a function that returns the keys pressed since its last call, without waiting.

    The terminal is restored however the block ends. Ctrl-C, SIGTERM and a closed window press END,
    so that nothing is left half done, and end the program after the block; the second time at once.
    Input that is no terminal is read the same way.
    """
    fd = sys.stdin.fileno() if fd is None else fd
    saved = termios.tcgetattr(fd) if os.isatty(fd) else None
    handlers: dict[int, Any] = {}
    asked: list[int] = []

    def ask(number: int, _frame: FrameType | None) -> None:
        if asked:
            _leave(number)
        asked.append(number)

    try:
        handlers |= {number: signal.signal(number, ask) for number in _DEADLY}
        if saved is not None:
            tty.setcbreak(fd)
        yield lambda: END if asked else _pressed(fd)
    finally:
        if saved is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if asked:
        _leave(asked[0])


def _pressed(fd: int) -> str:
    if not select.select([fd], [], [], 0)[0]:
        return ""
    try:
        data = os.read(fd, 64)
    except OSError:  # the terminal is gone
        data = b""
    return _SEQUENCE.sub("", data.decode(errors="replace")) if data else END


def _leave(number: int) -> None:
    """End the program as the signal would, but through every `finally`."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
