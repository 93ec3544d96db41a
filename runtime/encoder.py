"""User audio to speech codes, 12.5 per second, while the user speaks (contract D).

Streaming equals offline under the same log-mel rule: codes depend only on samples already heard.
Code t needs mel frames 0 … 8t + 6, so it could be known at sample 1280 t + 1160 of its segment. The
engine takes whole groups of eight frames, whose last one only code t + 1 looks at: a code therefore
comes 160 samples (10 ms) later, at sample 1280 t + 1320. Nobody waits for those 10 ms, because
`finish` needs no further samples.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle
from .errors import BundleError
from .kv_ring import KVRing
from .log_mel import CODE_SAMPLES, Mel, Pcm, StreamingLogMel

Codes = NDArray[np.int64]

MEL_PER_CODE = 8
FRAMES_PER_CODE = 4  # at 50 Hz, pooled into one code
MAX_CODES = 25  # of one engine call, 2 s of audio: bounds the time of one job
_TAILS = ("conv1_tail", "conv2_tail")


@dataclass(frozen=True, slots=True)
class EncoderMark:
    """A moment in the stream that `SpeechEncoder.restore` can go back to."""

    log_mel: StreamingLogMel
    waiting: Mel
    tails: dict[str, NDArray[np.float32]]
    frames: int
    segment: int


class SpeechEncoder:
    """One stream of audio at 16 kHz. After `finish` the next `push` starts a new one."""

    def __init__(self, bundle: Bundle, *, threads: int = 1, exact: bool = False) -> None:
        self._engine = bundle.engine("encoder", threads=threads, exact=exact)
        self._assumed_max = bundle.manifest.log_mel_max
        self._mel_bins = bundle.manifest.encoder.mel_bins
        self._code_count = bundle.manifest.encoder.code_count
        # positions, attention and log-mel start anew there (contract D.3 step 2)
        self._segment_samples = bundle.manifest.encoder.segment_samples
        frames = self._segment_samples // CODE_SAMPLES * FRAMES_PER_CODE
        self._ring = KVRing.for_engine(self._engine, frames, pinned=frames, initial=128)
        self._segment = 0  # counts those ever started, so that a mark knows its own
        self._waiting: Mel  # frames of an unfinished group of eight
        self._tails: dict[str, NDArray[np.float32]]
        self.reset()

    @property
    def nbytes(self) -> int:
        """Size of the state that grows with the audio: keys and values of at most 30 s."""
        return self._ring.nbytes

    def reset(self, assumed_max: float | None = None) -> None:
        """Forget the stream; `assumed_max`, if given, takes the place of the manifest's."""
        if assumed_max is not None:
            self._assumed_max = assumed_max
        self._start_segment()
        self._finished = False

    def push(self, pcm: Pcm) -> Codes:
        """pcm [S] float32 in ±1 -> the codes [n] that have become known; n may be 0."""
        if self._finished:
            self.reset()
        codes = []
        while len(pcm):
            room = self._segment_samples - self._log_mel.samples
            codes += self._encode(self._log_mel.push(pcm[:room]))
            pcm = pcm[room:]
            if self._log_mel.samples == self._segment_samples:
                codes += self._encode(self._log_mel.finish())
                self._start_segment()
        return np.concatenate([np.zeros(0, np.int64), *codes])

    def finish(self) -> Codes:
        """The remaining codes, zeros filling the last one: ceil(S/1280) per segment in all."""
        codes = [] if self._finished else self._encode(self._log_mel.finish())
        self._finished = True
        return np.concatenate([np.zeros(0, np.int64), *codes])

    def mark(self) -> EncoderMark:
        """Remember this moment. Costs nothing: state is replaced, not written into."""
        return EncoderMark(
            copy.copy(self._log_mel), self._waiting, self._tails, self._ring.length, self._segment
        )

    def restore(self, mark: EncoderMark) -> None:
        """Go back to `mark`: samples pushed and a `finish` since then never happened.

        Possible until the stream has reached its next segment or a new stream has begun.
        """
        assert mark.segment == self._segment, "the keys and values of the mark are gone"
        self._ring.rewind(self._ring.length - mark.frames)
        self._log_mel = copy.copy(mark.log_mel)
        self._waiting, self._tails = mark.waiting, mark.tails
        self._finished = False

    def _start_segment(self) -> None:
        self._segment += 1
        self._log_mel = StreamingLogMel(self._mel_bins, self._assumed_max)
        self._waiting = np.zeros((self._mel_bins, 0), np.float32)
        shapes = {name: self._engine.inputs[name].shape for name in _TAILS}
        self._tails = {n: np.zeros(tuple(map(int, s)), np.float32) for n, s in shapes.items()}
        self._ring.reset()

    def _encode(self, mel: Mel) -> list[Codes]:
        """Run all whole groups of eight frames; the rest waits."""
        self._waiting = np.concatenate([self._waiting, mel], axis=1)
        codes = []
        while self._waiting.shape[1] >= MEL_PER_CODE:
            count = min(self._waiting.shape[1] // MEL_PER_CODE, MAX_CODES)
            codes.append(self._run(self._waiting[:, : count * MEL_PER_CODE]))
            self._waiting = self._waiting[:, count * MEL_PER_CODE :]
        return codes

    def _run(self, mel: Mel) -> Codes:
        """One engine call: mel [M, 8n] -> codes [n]."""
        start, frames = self._ring.length, mel.shape[1] // 2
        feeds = {"log_mel": mel[None], "frame_index": np.array([start]), **self._tails}
        out = self._engine.run(feeds | self._ring.feeds(start, frames), [self._ring])
        codes: Codes = out["codes"][0]
        if not ((codes >= 0) & (codes < self._code_count)).all():
            raise BundleError(
                f"the encoder made codes {codes.min()} … {codes.max()}, expected 0 … "
                f"{self._code_count - 1}; export the bundle again"
            )
        self._ring.advance(frames)
        self._tails = {name: out[f"{name}_out"] for name in _TAILS}
        return codes
