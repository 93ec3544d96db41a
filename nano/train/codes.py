"""Stage 3: every recording as codes of the trained tokenizer.

    python -m nano.train.codes          (after the tokenizer stage; resumable)

Questions go through several random channels (speed, room, noise); replies and the evaluation set
are encoded as they are. Writes WORK/train/codes.npz, keys "SET/FILE/CHANNEL".
"""

from __future__ import annotations

import argparse
import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from .corpus import Pcm, augment, load_index, read
from .tokens import fingerprint, trained_tokenizer

Codes = NDArray[np.int64]
TOKENIZER = "made by"  # key of the tokenizer's fingerprint
# channel 0 is the recording itself, the others are random
CHANNELS = {"replies": range(1), "eval": range(1), "questions": range(4), "accents": range(1, 2)}


def channel(pcm: Pcm, key: str) -> Pcm:
    """The recording through the random channel that belongs to `key`."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    return augment(pcm, np.random.default_rng(seed))


def load_codes(work: Path, made_by: str) -> dict[str, Codes]:
    """What the tokenizer of that fingerprint wrote; {} when it never did."""
    path = work / "train" / "codes.npz"
    if not path.exists():
        return {}
    with np.load(path) as stored:
        if TOKENIZER not in stored or str(stored[TOKENIZER]) != made_by:
            return {}
        return {k: stored[k].astype(np.int64) for k in stored.files if k != TOKENIZER}


def _save(work: Path, codes: dict[str, Codes], made_by: str) -> None:
    path = work / "train" / "codes.tmp.npz"
    arrays: dict[str, NDArray[Any]] = {k: v.astype(np.int16) for k, v in codes.items()}
    arrays[TOKENIZER] = np.array(made_by)
    np.savez(path, allow_pickle=False, **arrays)
    os.replace(path, work / "train" / "codes.npz")


def encode_all(work: Path) -> dict[str, Codes]:
    """Encode what is not in codes.npz yet."""
    tokenizer = trained_tokenizer(work)
    made_by = fingerprint(tokenizer)
    codes = load_codes(work, made_by)
    jobs = [
        (f"{name}/{u.path.name}/{k}", u, k)
        for name, channels in CHANNELS.items()
        for u in load_index(work, name)
        for k in channels
    ]
    todo = [job for job in jobs if job[0] not in codes]
    for done, (key, utterance, k) in enumerate(tqdm(todo, desc="codes"), 1):
        pcm = read(utterance, 16000)
        if k:
            pcm = channel(pcm, key)
        with torch.no_grad():
            codes[key] = tokenizer.encode(torch.from_numpy(pcm)).numpy()
        if done % 2000 == 0:
            _save(work, codes, made_by)
    _save(work, codes, made_by)
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    encode_all(args.work.expanduser())


if __name__ == "__main__":
    main()
