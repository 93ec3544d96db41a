r"""The queue between voice and loudspeaker, which can be held: silent at once, nothing lost.

samples   ======\____________/======        5 ms down, 5 ms up: no click
reader    plays   gives silence  plays on
                hold()        release()
"""

from __future__ import annotations

import numpy as np

from .audio_ring import AudioRing, Pcm

FADE_SAMPLES = 120  # 5 ms at 24 kHz


class Playback(AudioRing):
    """An AudioRing; the writer's thread holds and releases it.

    While `held`, missing samples are no underrun.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__(capacity)
        rising = (np.arange(FADE_SAMPLES) + 0.5) / FADE_SAMPLES
        self._rising: Pcm = rising.astype(np.float32)
        self._falling: Pcm = rising[::-1].astype(np.float32)
        self._held = False  # writer: what is wanted
        self._silent = False  # reader: what was done

    @property
    def held(self) -> bool:
        """Whether the loudspeaker gets silence although there may be samples."""
        return self._held

    def hold(self) -> None:
        """From the next block on give silence; what is in the ring stays. Writer's thread."""
        self._held = True

    def release(self) -> None:
        """Play on. Writer's thread."""
        self._held = False

    def read(self, out: Pcm) -> int:
        """As `AudioRing.read`; while held, out [S] is silence but for one fade of 5 ms."""
        held, was = self._held, self._silent
        self._silent = held
        if not held and not was:
            return super().read(out)
        fade = min(len(out), FADE_SAMPLES)
        if not held:
            taken = super().read(out)
            out[:fade] *= self._rising[-fade:]
            return taken
        out[fade:] = 0
        if was:
            out[:fade] = 0
            return 0
        taken = super().read(out[:fade])
        out[:fade] *= self._falling[-fade:]
        return taken
