"""Echo cancellation and noise suppression (WebRTC's AEC3), for the ear that waits for speech.

    loudspeaker callback --> Reference --> far  block of 10 ms --v
    microphone callback  --> Microphone -> near block of 10 ms --> Cleaner --> clean block

One far block goes with each near block. AEC3 finds the delay between them by itself, as long as
the sound was in the reference before it is in the microphone, but whenever that delay changes it
needs a moment, in which echo gets through. So the reference lags a little from the start (until
the loudspeaker itself stalls), and a block that comes too late is left out: the next ones must not
move.
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

LAG_BLOCKS = 3  # 30 ms, for callbacks come unevenly: less than the LATENCY_S asked of a device
WINDOW_BLOCKS = 100  # in which the reference must once lag no more than that: 1 s
LATE_BLOCKS = 20  # a block missing for longer was never played: 200 ms


class Reference:
    """What the loudspeaker plays, in step with the microphone; silence where that is unknown."""

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._silence: Pcm = np.zeros(rate_hz // 100, np.float32)
        self.connect(None)

    def connect(self, playout: Playout | None) -> None:
        """The loudspeaker or the microphone is another one: keep step anew, from now on."""
        self._reader: BlockReader | None = None
        self._left: deque[int] = deque(maxlen=WINDOW_BLOCKS)  # blocks, after each one taken
        self._lag = 0  # blocks of silence that went before the first one
        self._missing = 0  # blocks that silence stood in for
        self._since = 0  # blocks taken since then
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
        if len(reader) and self._lag < LAG_BLOCKS:
            self._lag += 1
            return self._silence
        late = min(self._missing, max(0, len(reader) - 1 - LAG_BLOCKS - near_waiting))
        reader.drop(late)
        self._missing -= late
        if not len(reader):
            self._missing, self._since = self._missing + 1, 0
            self._left.append(0)
            return self._silence
        block = reader.take()
        self._since += 1
        if self._since > LATE_BLOCKS:
            self._missing = 0
        self._left.append(max(0, len(reader) - near_waiting))
        ahead = min(self._left) - LAG_BLOCKS
        if len(self._left) == WINDOW_BLOCKS and ahead > 1:
            reader.drop(ahead)
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
