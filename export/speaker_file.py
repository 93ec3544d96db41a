"""`flow/campplus.onnx`, the speaker encoder, which a bundle takes over as it is (contract G)."""

from __future__ import annotations

from pathlib import Path

from antiphon.runtime.errors import CorruptFile
from antiphon.runtime.onnx_file import OnnxFacts, read_facts

MAX_BYTES = 256 << 20  # nine times the published file
FBANK_BINS = 80
STANDARD = {"", "ai.onnx"}


def check_speaker(path: Path, speaker_dim: int) -> None:
    """Raise CorruptFile unless the file can be the speaker engine.

    It takes one input, float32 [1, T, 80], gives float32 [1, speaker_dim] first, holds its own
    weights and uses standard operators alone.
    """
    try:
        if not path.is_file():
            raise CorruptFile("not a file")
        if path.stat().st_size > MAX_BYTES:
            raise CorruptFile(f"more than {MAX_BYTES >> 20} MB")
        facts = read_facts(path)
    except OSError as error:
        raise CorruptFile(f"{path}: cannot be read ({error.strerror})") from error
    except CorruptFile as error:
        reason = str(error).rpartition("; ")[0] or str(error)
        raise CorruptFile(f"{path}: {reason}; download it again") from error
    for problem in _problems(facts, speaker_dim):
        raise CorruptFile(f"{path}: {problem}; is it the published campplus.onnx?")


def _problems(facts: OnnxFacts, speaker_dim: int) -> list[str]:
    found = []
    if facts.external:
        found.append("keeps weights in other files, expected all of them inside")
    if foreign := sorted(facts.domains - STANDARD):
        found.append(f"uses operators of {foreign}, expected standard ones")
    wanted = {"input": (facts.inputs, FBANK_BINS, 3), "output": (facts.outputs, speaker_dim, 2)}
    for what, (specs, width, rank) in wanted.items():
        if what == "input" and len(specs) != 1:
            found.append(f"has {len(specs)} inputs, expected one")
        elif not specs or specs[0].dtype != "float32" or not _fits(specs[0].shape, width, rank):
            got = f"{specs[0].dtype}{list(specs[0].shape)}" if specs else "absent"
            shape = [1, "T", width] if rank == 3 else [1, width]
            found.append(f"its {what} is {got}, expected float32{shape}")
    return found


def _fits(shape: tuple[int | str, ...], width: int, rank: int) -> bool:
    """A batch of one, any time, and the width; batch and width may be left open."""
    return (
        len(shape) == rank
        and (shape[0] == 1 or isinstance(shape[0], str))
        and (shape[-1] == width or isinstance(shape[-1], str))
    )
