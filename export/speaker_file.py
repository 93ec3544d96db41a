"""`flow/campplus.onnx`, the speaker encoder, which a bundle takes over as it is (contract G)."""

from __future__ import annotations

from pathlib import Path

from antiphon.runtime.engine_check import speaker_misfit
from antiphon.runtime.errors import CorruptFile
from antiphon.runtime.onnx_file import OnnxFacts, read_facts

MAX_BYTES = 256 << 20  # nine times the published file
STANDARD = {"", "ai.onnx"}


def check_speaker(path: Path, speaker_dim: int) -> None:
    """Raise CorruptFile unless the file can be the speaker engine.

    Its input and output are what the runtime will ask for, it holds its own weights and uses
    standard operators alone.
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
        reason = (str(error).rpartition("; ")[0] or str(error)).removeprefix(f"{path.name}: ")
        raise CorruptFile(f"{path}: {reason}; download it again") from error
    for problem in _problems(facts, speaker_dim):
        raise CorruptFile(f"{path}: {problem}; is it the published campplus.onnx?")


def _problems(facts: OnnxFacts, speaker_dim: int) -> list[str]:
    found = []
    if facts.external:
        found.append("keeps weights in other files, expected all of them inside")
    if foreign := sorted(facts.domains - STANDARD):
        found.append(f"uses operators of {foreign}, expected standard ones")
    if misfit := speaker_misfit(facts, speaker_dim):
        found.append(misfit)
    return found
