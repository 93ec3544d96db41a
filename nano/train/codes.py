"""Stage 3: every recording as codes of the trained tokenizer.

    python -m nano.train.codes          (after the tokenizer stage; resumable)

Questions go through several random channels (speed, room, noise), in two of which the speaker
pauses in mid-sentence; replies and the evaluation set are encoded as they are. Writes
WORK/train/codes.npz, keys "SET/FILE/CHANNEL".
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

from .corpus import Pcm, Utterance, augment, load_index, pause, read
from .tokens import fingerprint, trained_tokenizer

Codes = NDArray[np.int64]
TOKENIZER = "made by"  # key of the tokenizer's fingerprint
# channel 0 is the recording itself, the others are random
CHANNELS = {"replies": (0,), "eval": (0,), "questions": range(6), "accents": (1, 4)}
PAUSED = (4, 5)  # channels

_tokenizer: SpeechTokenizer  # of a worker process, set once by `_start_worker`


def channel(pcm: Pcm, key: str, *, paused: bool) -> Pcm:
    """The recording through the random channel that belongs to `key`."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little")
    rng = np.random.default_rng(seed)
    return augment(pause(pcm, rng) if paused else pcm, rng)


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


def _start_worker(work: Path) -> None:
    global _tokenizer
    torch.set_num_threads(1)
    _tokenizer = trained_tokenizer(work)


def _encode(job: tuple[str, Utterance, int]) -> tuple[str, Codes]:
    key, utterance, k = job
    pcm = read(utterance, 16000)
    if k:
        pcm = channel(pcm, key, paused=k in PAUSED)
    with torch.no_grad():
        codes: Codes = _tokenizer.encode(torch.from_numpy(pcm)).numpy()
    return key, codes


def encode_all(work: Path, jobs: int) -> dict[str, Codes]:
    """Encode what is not in codes.npz yet."""
    made_by = fingerprint(trained_tokenizer(work))
    codes = load_codes(work, made_by)
    keys = [
        (f"{name}/{u.path.name}/{k}", u, k)
        for name, channels in CHANNELS.items()
        for u in load_index(work, name)
        for k in channels
    ]
    todo = [item for item in keys if item[0] not in codes]
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, _start_worker, (work,)) as pool:
        made = tqdm(pool.imap_unordered(_encode, todo, 16), desc="codes", total=len(todo))
        for done, (key, found) in enumerate(made, 1):
            codes[key] = found
            if done % 2000 == 0:
                _save(work, codes, made_by)
    _save(work, codes, made_by)
    return codes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes (1)")
    args = parser.parse_args()
    encode_all(args.work.expanduser(), args.jobs)


if __name__ == "__main__":
    main()
