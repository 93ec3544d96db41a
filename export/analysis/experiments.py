"""The two experiments, from a checkpoint folder and recordings to what was found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..checkpoint import Checkpoint
from ..progress import Progress
from . import similarity as likeness
from . import tokenizer_check as check
from .probe import Training
from .recording import Recording
from .similarity import Sentence, Similarity
from .speech import Ear, Heard
from .tokenizer_check import TokenizerCheck


def similarity(checkpoint: Path, recordings: Sequence[Recording], progress: Progress) -> Similarity:
    """Layer-wise similarity of speech and text. Raises AntiphonError, for bad input before work."""
    likeness.check_texts([r.text for r in recordings])
    source = Checkpoint.open(checkpoint)
    progress.step("codes of the recordings", 0, 2)
    heard = _hear(Ear(source), recordings, progress)
    sentences = [Sentence(one.name, one.codes, one.text) for one in heard]
    progress.step("layers of the language model", 1, 2)
    return likeness.measure(source, sentences, progress.advance)


def tokenizer(
    checkpoint: Path,
    recordings: Sequence[Recording],
    progress: Progress,
    *,
    steps: int,
) -> TokenizerCheck:
    """What a probe, trained for `steps`, reads in the codes.

    Raises AntiphonError, for bad input before work.
    """
    check.check_texts([r.text for r in recordings])
    ear = Ear(Checkpoint.open(checkpoint))
    progress.step("codes of the recordings", 0, 2)
    heard = list(_hear(ear, recordings, progress))
    progress.step("training of the probes", 1, 2)
    return check.check(heard, ear.codebook, Training(steps=steps), progress.advance)


def _hear(ear: Ear, recordings: Sequence[Recording], progress: Progress) -> Iterator[Heard]:
    for done, recording in enumerate(recordings, 1):
        yield ear.hear(recording)
        progress.advance(done, len(recordings))
