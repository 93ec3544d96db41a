"""Is somebody speaking? Silero VAD, a recurrent network that reads 32 ms at a time.

The model file lies beside this code, with its licence (MIT): `assets/`. It takes the 64 samples
before a window together with the window, and carries its state from window to window.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .backend import Engine
from .errors import CorruptFile

Pcm = NDArray[np.float32]

RATE_HZ = 16_000
WINDOW_SAMPLES = 512
WINDOW_MS = 1000 * WINDOW_SAMPLES / RATE_HZ
MODEL = Path(__file__).parent / "assets" / "silero_vad_16k.onnx"
_SHA256 = "7ed98ddbad84ccac4cd0aeb3099049280713df825c610a8ed34543318f1b2c49"
_CONTEXT = 64  # samples of the previous window
_STATE = (2, 1, 128)


class VoiceDetector:
    """One stream of audio at 16 kHz, window after window."""

    def __init__(self, model: Path = MODEL) -> None:
        """Load the model. Raises CorruptFile when it is not the one this code was made for."""
        self._engine = _load(model)
        self.reset()

    def reset(self) -> None:
        """Forget the stream."""
        self._state = np.zeros(_STATE, np.float32)
        self._context = np.zeros(_CONTEXT, np.float32)

    def push(self, window: Pcm) -> float:
        """The next window [512] float32 in ±1 -> the probability that there is speech in it."""
        assert window.shape == (WINDOW_SAMPLES,)
        feeds = {
            "input": np.concatenate([self._context, window])[None],
            "state": self._state,
            "sr": np.array(RATE_HZ),
        }
        out = self._engine.run(feeds)
        self._state, self._context = out["stateN"], window[-_CONTEXT:].copy()
        return float(out["output"][0, 0])


@cache
def _load(model: Path) -> Engine:
    """The network; all streams share it."""
    try:
        found = hashlib.sha256(model.read_bytes()).hexdigest()
    except OSError as error:
        raise CorruptFile(f"{model}: {error.strerror}; install antiphon again") from error
    if found != _SHA256:
        raise CorruptFile(
            f"{model}: sha256 {found[:8]}… is not that of the voice detector "
            f"({_SHA256[:8]}…); install antiphon again"
        )
    return Engine.load(model)
