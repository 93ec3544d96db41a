"""Echo cancellation and noise suppression (WebRTC's AEC3), for the ear that waits for speech.

    loudspeaker callback --> Reference --> far  block of 10 ms --v
    microphone callback  --> Microphone -> near block of 10 ms --> Cleaner --> clean block

One far block goes with each near block. AEC3 finds the delay between them by itself, as long as
the sound was in the reference before it is in the microphone: so the reference must not lag.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.errors import AudioDeviceError
from antiphon.runtime.resample import Resampler

from .microphone import BlockReader
from .streams import Playout

Pcm = NDArray[np.float32]

WINDOW_BLOCKS = 100  # in which the reference must run dry once: 1 s
SLACK_BLOCKS = 3  # that may always be left over: the callbacks come in any order, and not evenly


class Reference:
    """What the loudspeaker plays, in step with the microphone; silence where that is unknown."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._silence: Pcm = np.zeros(rate_hz // 100, np.float32)
        self._reader: BlockReader | None = None
        self._left: deque[int] = deque(maxlen=WINDOW_BLOCKS)  # blocks, after each one taken

    def connect(self, playout: Playout | None) -> None:
        """The loudspeaker or the microphone is another one: keep step anew, from now on."""
        self._reader = None
        self._left.clear()
        if playout is not None:
            self._reader = BlockReader(playout.reference, playout.port.rate_hz, self._rate_hz)
            self._reader.skip()

    def take(self, near_waiting: int) -> Pcm:
        """The block [rate / 100] for the next one of the microphone.

        near_waiting  blocks of the microphone that wait behind that one
        """
        if (reader := self._reader) is None:
            return self._silence
        reader.pull()
        if not len(reader):
            self._left.append(0)
            return self._silence
        block = reader.take()
        self._left.append(max(0, len(reader) - near_waiting))
        lag = min(self._left)
        if len(self._left) == WINDOW_BLOCKS and lag > SLACK_BLOCKS:
            reader.drop(lag - SLACK_BLOCKS)
            self._left.clear()
        return block


class Cleaner:
    """Takes noise, and what the loudspeaker plays, out of the microphone."""

    def __init__(self, near_hz: int, far_hz: int, *, cancel_echo: bool) -> None:
        """Raises AudioDeviceError when echo is to be cancelled and the library is missing."""
        self._engine = _load(near_hz, cancel_echo=cancel_echo)
        self._resampler = Resampler(far_hz, near_hz)
        self._far: Pcm = np.zeros(near_hz // 100, np.float32)  # so that a whole block is there

    def reset(self) -> None:
        """The devices, and so the room between them, are others."""
        if self._engine is not None:
            self._engine.reset()

    def process(self, near: Pcm, far: Pcm) -> Pcm:
        """10 ms of the microphone, and of the loudspeaker -> the first, cleaned; 14 ms late."""
        if self._engine is None:
            return near
        self._far = np.concatenate([self._far, self._resampler.push(far)])
        block, self._far = np.split(self._far, [len(near)])
        cleaned: Pcm = self._engine.process(near, block)
        return cleaned


def _load(rate_hz: int, *, cancel_echo: bool) -> Any:
    """The engine; None when it is missing and not needed."""
    try:
        import pywebrtc_audio
    except ImportError as error:
        if not cancel_echo:
            return None
        raise AudioDeviceError(
            "pywebrtc-audio is not installed, so the model would hear itself; install the extra: "
            "pip install 'antiphon[audio]', or use headphones and --no-aec"
        ) from error
    return pywebrtc_audio.AudioProcessor(
        rate_hz, 1, echo_cancellation=cancel_echo, noise_suppression=True
    )
