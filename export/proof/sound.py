"""How far two voices are apart, and how each sounds to a listener that never heard either."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.backend import Engine
from antiphon.runtime.flow_mel import RATE_HZ, flow_mel
from antiphon.runtime.resample import resample

Floats = NDArray[np.float32]

PACKAGE = "speechmos"  # its wheel holds the model; MIT
_MODEL = Path("dnsmos_models", "sig_bak_ovr.onnx")
_LISTENER_HZ = 16_000
_WINDOW = 144_160  # samples the model takes: 9.01 s
_DB = 20 / math.log(10)  # mel frames are natural logarithms of magnitudes
# Raw outputs to mean opinion scores, highest power first; published with the model.
_CURVES = {
    "signal": (-0.08397278, 1.22083953, 0.0052439),
    "background": (-0.13166888, 1.60915514, -0.39604546),
    "overall": (-0.06766283, 1.11546468, 0.04602535),
}


def mel_distance_db(exact: Floats, measured: Floats, mel_bins: int = 80) -> float:
    """Mean absolute difference of the log mels of two signals [S] at 24 kHz, in decibels.

    The same front end as of voice prompts (contract E.8), whose floor of 1e-5 keeps silence from
    counting. The longer one is cut.
    """
    count = min(len(exact), len(measured))
    mels = [flow_mel(pcm[:count], mel_bins) for pcm in (exact, measured)]
    return _DB * float(np.abs(mels[0] - mels[1]).mean())


@dataclass(frozen=True, slots=True)
class Opinion:
    """Mean opinion scores, 1 to 5, of DNSMOS P.835 (Reddy et al. 2022)."""

    signal: float
    background: float
    overall: float


class Listener:
    """DNSMOS, run from the file that the package `speechmos` brings."""

    def __init__(self, model: Path) -> None:
        self._engine = Engine.load(model)

    def opinion(self, pcm: Floats) -> Opinion:
        """Samples [S] at 24 kHz -> mean over windows of 9.01 s, one a second.

        What is shorter is repeated, as the model's authors do.
        """
        heard = np.clip(resample(pcm, RATE_HZ, _LISTENER_HZ), -1, 1)
        while len(heard) < _WINDOW:
            heard = np.concatenate((heard, heard))
        starts = range(0, len(heard) - _WINDOW + 1, _LISTENER_HZ)
        windows = np.stack([heard[start : start + _WINDOW] for start in starts])
        (raw,) = self._engine.run({"input_1": windows}).values()  # [N, 3]
        scores = [
            float(np.polyval(curve, raw[:, i]).mean()) for i, curve in enumerate(_CURVES.values())
        ]
        return Opinion(*scores)


def find_listener() -> Listener | None:
    """The listener, if the package is installed; it is never imported."""
    spec = find_spec(PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        if (model := Path(folder) / _MODEL).is_file():
            return Listener(model)
    return None
