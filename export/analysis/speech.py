"""What the speech tokenizer of a checkpoint makes of recordings: codes, and what they stand for."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from antiphon.runtime.errors import AudioError

from ..checkpoint import Checkpoint
from ..parity import loaded
from ..reference.mel import pad_to_codes, whisper_log_mel
from ..reference.speech_tokenizer import SpeechTokenizer
from .recording import Recording

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Heard:
    """One recording of n codes, 12.5 of them a second."""

    name: str
    text: str
    codes: NDArray[np.int64]  # [n]
    pooled: Floats  # [n, d]: the frames that the codes stand for
    log_mel: Floats  # [n, 4 M]: the log-mel of each code's 80 ms, at 50 Hz as the encoder's frames


class Ear:
    """The reference tokenizer, the only part of the checkpoint that is loaded."""

    def __init__(self, source: Checkpoint) -> None:
        """Load it. Raises CorruptFile where a tensor cannot be read."""
        self._bins = source.tokenizer_config.num_mel_bins
        self._segment_samples = source.tokenizer_config.segment_samples
        self._encoder = loaded(
            lambda: SpeechTokenizer(source.tokenizer_config),
            lambda name: source.read("tokenizer", name),
        ).encoder

    @property
    def codebook(self) -> Floats:
        """What each code stands for [V, d]."""
        rows: Floats = self._encoder.codebook.weight.detach().float().numpy()
        return rows

    def hear(self, recording: Recording) -> Heard:
        """Codes of the whole recording, segment by segment (contract D.3). Raises AudioError."""
        pcm = recording.read()
        if not len(pcm):
            raise AudioError(f"{recording.name}: holds no samples; leave it out")
        codes, pooled, mels = [], [], []
        with torch.no_grad():
            for segment in torch.from_numpy(pcm).split(self._segment_samples):
                mel = whisper_log_mel(pad_to_codes(segment[None]), self._bins)
                frames = self._encoder(mel)
                codes.append(self._encoder.quantize(frames)[0].numpy())
                pooled.append(frames[0].numpy())
                halved = mel[0].T.unflatten(0, (-1, 2)).mean(1)
                mels.append(halved.reshape(frames.shape[1], -1).numpy())
        parts = (np.concatenate(part) for part in (codes, pooled, mels))
        return Heard(recording.name, recording.text, *parts)
