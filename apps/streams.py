"""Open streams. Their callbacks copy samples between a ring and a block, and count; nothing else.

A stream ends without an error when its device goes away. Two signs tell: PortAudio says it is
not active, or its callback is no longer called (`beats` stands still).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.playback import Playback

from .devices import Port, quiet, unusable

Pcm = NDArray[np.float32]

CAPTURE_S = 10  # of microphone sound that may wait while an engine is busy
LATENCY_S = 0.04  # asked of the device: 20 ms drop out when the processor is busy


class Capture:
    """An open microphone, filling `ring` at the rate of its port."""

    def __init__(self, sd: Any, port: Port) -> None:
        self.port = port
        self.ring = AudioRing(port.rate_hz * CAPTURE_S)
        self.beats = 0  # callbacks so far
        self.overruns = 0  # times that samples were lost
        self.stream = _open(sd, sd.InputStream, port, self._on_block)

    def _on_block(self, block: Pcm, samples: int, _time: Any, status: Any) -> None:
        stored = self.ring.write(block[:, 0])
        self.beats += 1
        if status.input_overflow or stored < samples:
            self.overruns += 1


class Playout:
    """An open loudspeaker, playing `source`; what it has been given is kept in `reference`."""

    def __init__(self, sd: Any, port: Port, source: Playback) -> None:
        self.port = port
        self.reference = AudioRing(port.rate_hz * CAPTURE_S)
        self.beats = 0  # callbacks so far
        self.expecting = False  # whether missing samples would be heard as a gap
        self.underruns = 0  # gaps, each because the source had too little
        self.dropouts = 0  # times that the device was not served in time
        self.silent = 0  # samples of silence since the last one of the source
        self._gap = False  # the last block was not full, and should have been
        self.source = source
        self.stream = _open(sd, sd.OutputStream, port, self._on_block)
        self.latency: int = round(self.stream.latency * port.rate_hz)  # samples, as the device says

    def _on_block(self, block: Pcm, samples: int, _time: Any, status: Any) -> None:
        first = block[:, 0]
        taken = self.source.read(first)
        block[:, 1:] = block[:, :1]
        self.reference.write(first)
        self.beats += 1
        self.silent = 0 if taken == samples else self.silent + samples - taken
        gap = self.expecting and taken < samples and not self.source.held
        self.underruns += gap and not self._gap
        self._gap = gap
        if status.output_underflow:
            self.dropouts += 1


def close(stream: Any) -> None:
    """Close at once; a device that is gone has nothing to say about it."""
    with quiet():
        stream.abort(ignore_errors=True)
        stream.close(ignore_errors=True)


def _open(sd: Any, stream_type: Any, port: Port, callback: Any) -> Any:
    """A running stream. Raises AudioDeviceError."""
    try:
        with quiet(), ExitStack() as stack:
            stream = stream_type(
                device=port.number,
                channels=port.channels,
                dtype="float32",
                samplerate=port.rate_hz,
                blocksize=port.block,
                latency=LATENCY_S,
                callback=callback,
            )
            stack.callback(stream.close)
            stream.start()
            stack.pop_all()
    except sd.PortAudioError as error:
        raise unusable(port.name, port.kind, error) from error
    return stream
