"""A stereo wav file that can be played whenever the program ends, killed or not.

16 bits, user left, assistant right. The lengths in its header are brought up to date every second.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.errors import AudioError

Pcm = NDArray[np.float32]

HEADER_BYTES = 44
SAMPLE_BYTES = 4  # of both channels
MOST_SAMPLES = (1 << 31) // SAMPLE_BYTES  # some programs read lengths as signed
UPDATE_S = 1


class StereoWav:
    """Grows by blocks; must not exist yet."""

    def __init__(self, path: Path, rate_hz: int) -> None:
        """Raises AudioError."""
        self.path, self.rate_hz = path, rate_hz
        self.samples = 0  # of each channel
        self._stated = 0  # in the header
        try:
            self._file = path.open("xb")
        except OSError as error:
            raise AudioError(f"{path}: cannot be written: {error.strerror}") from error
        self._update()

    @property
    def full(self) -> bool:
        """Whether another second might not fit into the format."""
        return self.samples + self.rate_hz > MOST_SAMPLES

    def write(self, left: Pcm, right: Pcm) -> None:
        """Append [S] and [S] in ±1; louder samples are clipped. Raises AudioError: disk full."""
        both = np.stack([left, right], axis=1)
        try:
            self._file.write(np.round(np.clip(both, -1, 1) * 32767).astype("<i2").tobytes())
        except OSError as error:
            raise AudioError(f"{self.path}: cannot be written: {error.strerror}") from error
        self.samples += len(both)
        if self.samples - self._stated >= UPDATE_S * self.rate_hz:
            self._update()

    def close(self) -> None:
        """Finish the file. Raises AudioError."""
        if not self._file.closed:
            try:
                self._update()
            finally:
                self._file.close()

    def _update(self) -> None:
        size = self.samples * SAMPLE_BYTES
        head = struct.pack(
            "<4sI4s4sIHHIIHH4sI",
            b"RIFF", size + HEADER_BYTES - 8, b"WAVE", b"fmt ", 16, 1, 2, self.rate_hz,
            self.rate_hz * SAMPLE_BYTES, SAMPLE_BYTES, 16, b"data", size,
        )  # fmt: skip
        try:
            self._file.seek(0)
            self._file.write(head)
            self._file.seek(0, 2)
            self._file.flush()
        except OSError as error:
            raise AudioError(f"{self.path}: cannot be written: {error.strerror}") from error
        self._stated = self.samples
