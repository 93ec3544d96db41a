"""A thread of its own for calls that open and close devices.

Such a call may block for ever, for example when a sound server hangs. In here it keeps nobody
from leaving: not the loop that talks, not Ctrl-C, not the end of the program.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar

from antiphon.runtime.errors import AudioDeviceError

T = TypeVar("T")

PATIENCE_S = 10.0  # the first look for devices takes a second or two on some systems
POLL_S = 0.05  # a wait in short pieces, so that Ctrl-C is seen


class DeviceThread:
    """Runs calls one after the other; the last one may be given up."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        threading.Thread(target=self._run, name="devices", daemon=True).start()

    def submit(self, call: Callable[[], T]) -> Future[T]:
        """Have `call` run; the future tells when it is done, and its result or error."""
        future: Future[T] = Future()
        self._calls.put((future, call))
        return future

    def call(self, call: Callable[[], T], patience_s: float = PATIENCE_S) -> T:
        """Run `call` and wait for it. Raises what it raises, or AudioDeviceError: no answer."""
        future = self.submit(call)
        for _ in range(max(1, round(patience_s / POLL_S))):
            try:
                return future.result(POLL_S)
            except TimeoutError:
                if future.done():  # the call's own
                    raise
        give_up()
        raise AudioDeviceError(
            f"the sound system has not answered for {patience_s:.0f} s; restart it, or log in again"
        )

    def _run(self) -> None:
        while True:
            future, call = self._calls.get()
            try:
                future.set_result(call())
            except BaseException as error:
                future.set_exception(error)


def give_up() -> None:
    """A call hangs: end the program without PortAudio's clean-up, which would hang as well.

    Its threads still run, and may not find an interpreter half taken down: so it ends at once,
    with the exit code of a failure, after everything else was cleaned up.
    """
    handler = getattr(sys.modules.get("sounddevice"), "_exit_handler", None)
    if handler is not None:
        atexit.unregister(handler)
    atexit.register(_leave)


def _leave() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(1)
