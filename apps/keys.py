"""Single key presses, without waiting for Enter and without leaving the terminal changed."""

from __future__ import annotations

import os
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
_DEADLY = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def keyboard(fd: int | None = None) -> Iterator[Callable[[], str]]:
    """Yields a function that returns the keys pressed since its last call, without waiting.

    The terminal is restored however the block ends, also by SIGTERM or a closed window. Input
    that is no terminal is read the same way.
    """
    fd = sys.stdin.fileno() if fd is None else fd
    saved = termios.tcgetattr(fd) if os.isatty(fd) else None
    handlers: dict[int, Any] = {}
    try:
        handlers |= {number: signal.signal(number, _leave) for number in _DEADLY}
        if saved is not None:
            tty.setcbreak(fd)
        yield lambda: _pressed(fd)
    finally:
        if saved is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, saved)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _pressed(fd: int) -> str:
    if not select.select([fd], [], [], 0)[0]:
        return ""
    try:
        data = os.read(fd, 64)
    except OSError:  # the terminal is gone
        data = b""
    return data.decode(errors="replace") or END


def _leave(number: int, _frame: FrameType | None) -> None:
    """End the program as the signal would, but through every `finally`."""
    raise SystemExit(128 + number)
