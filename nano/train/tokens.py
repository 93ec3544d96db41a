"""The trained speech tokenizer, as the later stages use it."""

from __future__ import annotations

from pathlib import Path

import torch

from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

from .whisper_init import CONFIG


def trained_tokenizer(work: Path) -> SpeechTokenizer:
    """The encoder of WORK/train/tokenizer.pt. Raises SystemExit when that stage never ran."""
    path = work / "train" / "tokenizer.pt"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run python -m nano.train.tokenizer first")
    state = torch.load(path, weights_only=True)["model"]
    tokenizer = SpeechTokenizer(CONFIG)
    tokenizer.load_state_dict({k: v for k, v in state.items() if k.startswith("encoder.")})
    return tokenizer.eval()
