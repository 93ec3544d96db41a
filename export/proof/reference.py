"""A checkpoint as reference: exported to float32 for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError

from ..checkpoint import Checkpoint
from ..pipeline import export
from ..progress import Progress

WEIGHTS = "fp32"


@contextmanager
def exported(checkpoint: Path, bundle: Bundle, progress: Progress) -> Iterator[Bundle]:
    """The checkpoint as a float32 bundle in a temporary folder, as long as `bundle` may speak.

    Raises ConfigError for a checkpoint without a voice, and as `export` does; the temporary folder
    needs four bytes for each weight.
    """
    if not Checkpoint.open(checkpoint).voices:
        raise ConfigError(
            f"{checkpoint}: has no voice to be exported with; make a reference with `antiphon "
            f"export {checkpoint} REFERENCE --weights {WEIGHTS} --voice NAME=WAV` and name that"
        )
    with TemporaryDirectory(prefix="antiphon-") as folder:
        out, frames = Path(folder, checkpoint.absolute().name), bundle.noise.shape[1]
        settings = {"weights": WEIGHTS, "noise_frames": frames, "parity": False}
        export(checkpoint, out, progress=progress, **settings)
        yield Bundle.open(out, verify=False)
