"""Questions in a real human voice: `python -m nano.data.human`. For evaluation only.

Sums and differences put together from the Debian package asterisk-core-sounds-en-g722 (one speaker,
CC-BY-SA-3.0: nothing of it is trained on or shipped), decoded with the PyPI package G722. Joined
words are harder to follow than a spoken sentence; nobody recorded sentences of this domain.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import soundfile

from ..domain import MEANINGS, NUMBERS
from .audio import Pcm, limit, trim, write_flac
from .make import DEFAULT_WORK
from .teacher import MissingAssetError

SOUNDS = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
RATE_HZ = 16000
GAP = np.zeros(RATE_HZ * 40 // 1000, np.float32)
FAMILIES = {"add": "letters/plus", "subtract": "digits/minus"}


def _word(name: str) -> Pcm:
    """One prompt, its silence trimmed."""
    from G722 import G722

    path = SOUNDS / f"{name}.g722"
    if not path.exists():
        raise MissingAssetError(f"{path} is missing: apt-get install asterisk-core-sounds-en-g722")
    coded = np.asarray(G722(RATE_HZ, 64000).decode(path.read_bytes()))
    pcm: Pcm = (coded / 32768).astype(np.float32)
    return trim(pcm, RATE_HZ)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path(DEFAULT_WORK))
    folder = parser.parse_args().work.expanduser() / "data" / "human"
    folder.mkdir(parents=True, exist_ok=True)
    digits = [_word(f"digits/{n}") for n in range(11)]
    lines = []
    for meaning in MEANINGS:
        if meaning.family not in FAMILIES:
            continue
        a, b = (NUMBERS.index(w) for w in meaning.id.split("_")[1:])
        pcm = np.concatenate((digits[a], GAP, _word(FAMILIES[meaning.family]), GAP, digits[b]))
        path = folder / f"{meaning.id}.flac"
        write_flac(path, limit(pcm), RATE_HZ)
        line = {"file": path.name, "text": f"{NUMBERS[a]} {meaning.family} {NUMBERS[b]}"}
        line |= {"meaning": meaning.id, "voice": "Allison"}
        info = soundfile.info(path)
        lines.append(json.dumps(line | {"rate": RATE_HZ, "samples": info.frames}))
    (folder / "index.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
