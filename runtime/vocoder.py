"""Mel frames to samples, block by block with a cross-fade (contract F.4).

    frames   |----- block 1 -----|- 8 -|
    samples  |===== put out =====|~~~~~| withheld
    frames                       |- 8 -|----- block 2 -----|- 8 -|
    samples                      |~fade|===== put out =====|~~~~~| withheld

The vocoder looks 14 frames to either side and the overlap has 8, so blocks only nearly agree where
they meet; the fade hides the rest. Two deviations from upstream, both undone by `parity`:
- The window is complementary. Upstream's halves add up to 1.08, an audible bump at every seam.
- The phase of the harmonics runs on from block to block. Upstream restarts it in every block and
  so breaks every harmonic where the samples of the old source end.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle

Floats = NDArray[np.float32]

OVERLAP_FRAMES = 8


def fade_in(samples: int, *, parity: bool = False) -> NDArray[np.float64]:
    """Weights [S] of the new samples: raised cosine, or upstream's half of a Hamming window."""
    if parity:
        return np.hamming(2 * samples)[:samples]
    return 0.5 - 0.5 * np.cos(np.pi * (np.arange(samples) + 0.5) / samples)


def fade_out(samples: int, *, parity: bool = False) -> NDArray[np.float64]:
    """Weights [S] of the withheld samples; with `fade_in` they add up to 1 (parity: 1.08)."""
    if parity:
        return np.hamming(2 * samples)[samples:]
    return 1.0 - fade_in(samples)


class Vocoder:
    """One stream of mel frames. After `finish` or `reset` the next one may begin."""

    def __init__(
        self,
        bundle: Bundle,
        *,
        parity: bool = False,
        seed: int = 0,
        threads: int = 1,
        exact: bool = False,
    ) -> None:
        """Load the engine.

        parity  upstream's cross-fade and source, sample for sample
        seed    of the noise, the same for every stream
        exact   float products instead of int8 ones, for parity tests
        """
        sizes = bundle.manifest.vocoder
        self._engine = bundle.engine("vocoder", threads=threads, exact=exact)
        self.parity, self._seed = parity, seed
        self._mel_bins, self._orders = sizes.mel_bins, sizes.harmonics + 1
        self._frame = sizes.samples_per_frame
        self._overlap = OVERLAP_FRAMES * self._frame
        self._weights = (
            fade_in(self._overlap, parity=parity),
            fade_out(self._overlap, parity=parity),
        )
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._rng = np.random.default_rng(self._seed)
        self._mel: Floats = np.zeros((self._mel_bins, 0), np.float32)  # kept for the next block
        self._speech: Floats = np.zeros(0, np.float32)  # withheld
        self._source: Floats = np.zeros((1, 0), np.float32)
        self._phase: Floats = np.zeros((1, self._orders), np.float32)
        self._phase_frame = 0

    def push(self, mel: Floats) -> Floats:
        """mel [M, n] -> samples [S]: all but the last 8 frames of what came so far."""
        fresh = mel.shape[1]
        self._mel = np.concatenate((self._mel, mel), axis=1)
        if not fresh or self._mel.shape[1] <= OVERLAP_FRAMES:
            return np.zeros(0, np.float32)
        pcm = self._vocode()
        self._mel = self._mel[:, -OVERLAP_FRAMES:]
        self._speech = pcm[-self._overlap :]
        return pcm[: -self._overlap]

    def finish(self) -> Floats:
        """The withheld samples: 480 per frame in all."""
        if not len(self._speech) and self._mel.shape[1]:  # so short that no block was run
            self._speech = self._vocode()
        rest = self._speech
        self.reset()
        return rest

    def _vocode(self) -> Floats:
        """Run the frames kept: samples [S], the first of them cross-faded with those withheld."""
        samples, old = self._mel.shape[1] * self._frame, self._source.shape[1]
        noise = np.zeros((1, samples, self._orders), np.float32)
        self._rng.standard_normal(out=noise[0, old:], dtype=np.float32)
        out = self._engine.run(
            {
                "mel": self._mel[None],
                "noise": noise,
                "source_tail": self._source,
                "phase": self._phase,
                "phase_frame": np.array([self._phase_frame]),
            }
        )
        self._keep(out["source"], out["phase_out"])
        pcm: Floats = out["pcm"][0]
        if len(self._speech):
            rising, falling = self._weights
            head = pcm[: self._overlap] * rising + self._speech * falling
            pcm = np.concatenate((head.astype(np.float32), pcm[self._overlap :]))
        return pcm

    def _keep(self, source: Floats, phase: Floats) -> None:
        """Keep the source of the overlap, up to where its phase is known.

        That is the centre of its last frame: from there on the source has nowhere to go.
        """
        end = source.shape[1] - (0 if self.parity else self._frame // 2)
        self._source = source[:, max(0, source.shape[1] - self._overlap) : end]
        if not self.parity:
            self._phase, self._phase_frame = phase, OVERLAP_FRAMES
