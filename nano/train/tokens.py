"""The trained speech tokenizer, as the later stages use it, and its fingerprint."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

from .whisper_init import CONFIG


def trained_tokenizer(work: Path) -> SpeechTokenizer:
    """The encoder of WORK/train/tokenizer.pt. Raises SystemExit when that stage never ran."""
    path = work / "train" / "tokenizer.pt"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run python -m nano.train.tokenizer first")
    state = torch.load(path, weights_only=True, map_location="cpu")["model"]
    tokenizer = SpeechTokenizer(CONFIG)
    tokenizer.load_state_dict({k: v for k, v in state.items() if k.startswith("encoder.")})
    return tokenizer.eval()


def fingerprint(tokenizer: SpeechTokenizer) -> str:
    """Codes made with tokenizers of different fingerprints do not belong together."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tokenizer.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()
