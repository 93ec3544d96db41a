"""The loudspeaker as the conversation knows it: a playback queue at the model's rate.

    session -> Loudspeaker (a Playback, 24 kHz) -------------------> callback     device at 24 kHz
                     `-> resampler -> Playback of the device's rate -> callback   any other device

Devices may come and go: what no device has played yet is still there for the next one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.playback import Playback
from antiphon.runtime.resample import Resampler

from .streams import Playout

Pcm = NDArray[np.float32]

CAPACITY_S = 10
AHEAD_MS = 250  # of converted sound that waits for the device; longer than any one job


class Loudspeaker(Playback):
    """Written, held and flushed by the session; `pump` it often.

    A device is opened on what `source` gives, then connected.
    """

    def __init__(self, rate_hz: int) -> None:
        super().__init__(rate_hz * CAPACITY_S)
        self.rate_hz = rate_hz
        self._playout: Playout | None = None
        self._converted: Playback | None = None  # at the device's rate, if that is another
        self._resampler = Resampler(rate_hz, rate_hz)
        self._unfinished = False  # the end of what was read is still in the resampler
        self._ahead: Pcm = np.zeros(0, np.float32)  # the samples last read to be converted
        self._underruns = self._dropouts = 0  # of devices that are gone

    def source(self, device_hz: int) -> Playback:
        """What a device of that rate has to play."""
        if device_hz == self.rate_hz and not self._unplayed:
            return self
        return Playback(device_hz)

    def connect(self, playout: Playout | None) -> None:
        """Be played by this device from now on; it was opened on a `source`."""
        again = self._ahead[len(self._ahead) - self._unplayed :]
        if self._playout is not None:
            self._underruns += self._playout.underruns
            self._dropouts += self._playout.dropouts
        self._playout, self._converted, self._ahead = playout, None, again
        if playout is not None and playout.source is not self:
            self._converted, self._ahead = playout.source, again[:0]
            self._resampler = Resampler(self.rate_hz, playout.port.rate_hz)
            self._convert(again)
            if self.held:
                self.hold()

    @property
    def expecting(self) -> bool:
        """Whether more is to come, so that missing samples would be heard as a gap."""
        return self._playout is not None and self._playout.expecting

    @expecting.setter
    def expecting(self, expected: bool) -> None:
        if self._playout is not None:
            self._playout.expecting = expected

    @property
    def underruns(self) -> int:
        """Gaps in a reply, because the session had not made enough."""
        return self._underruns + (self._playout.underruns if self._playout else 0)

    @property
    def dropouts(self) -> int:
        """Times that the device was not served in time."""
        return self._dropouts + (self._playout.dropouts if self._playout else 0)

    @property
    def heard(self) -> int:
        """Index of the next sample to leave the loudspeaker, counted as `position` counts.

        What the device holds back, by its own account, is not heard yet.
        """
        index = self.position - self._unplayed
        if (playout := self._playout) is None:
            return index
        inside = max(0, playout.latency - playout.silent)
        return max(0, index - inside * self.rate_hz // playout.port.rate_hz)

    @property
    def playing(self) -> bool:
        """Whether samples wait to be played."""
        return len(self) + self._unplayed > 0

    def pump(self) -> None:
        """Convert a little of what waits, if the device has another rate."""
        if self._converted is None or self.held or self._playout is None:
            return
        room = AHEAD_MS * self.rate_hz // 1000 - self._unplayed
        block = np.empty(max(0, min(len(self), room)), np.float32)
        super().read(block)
        if len(block):
            self._convert(block)
        elif self._unfinished and not self.expecting and not len(self):
            self._converted.write(self._resampler.finish())
            self._unfinished = False

    def hold(self) -> None:
        """As `Playback.hold`."""
        super().hold()
        if self._converted is not None:
            self._converted.hold()

    def release(self) -> None:
        """As `Playback.release`."""
        super().release()
        if self._converted is not None:
            self._converted.release()

    def flush(self) -> int:
        """As `AudioRing.flush`, what has been converted included; nothing more is expected."""
        self.expecting = False
        self._ahead = self._ahead[:0]
        if self._converted is not None:
            self._converted.flush()
            self._resampler.reset()
            self._unfinished = False
        return super().flush()

    @property
    def _unplayed(self) -> int:
        """Samples read from the queue to be converted, and not played yet."""
        if self._converted is None or self._playout is None:
            return len(self._ahead)  # nobody plays
        waiting = len(self._converted) * self.rate_hz
        return min(len(self._ahead), -(-waiting // self._playout.port.rate_hz))

    def _convert(self, block: Pcm) -> None:
        assert self._converted is not None
        self._converted.write(self._resampler.push(block))
        self._ahead = np.concatenate([self._ahead, block])[-2 * AHEAD_MS * self.rate_hz // 1000 :]
        self._unfinished = True
