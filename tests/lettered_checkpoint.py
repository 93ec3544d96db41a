"""A tiny checkpoint whose text tokens are letters, and whose codes may be made to mean the same."""

import json
from pathlib import Path

import torch
from tiny_checkpoint import FLOW, HIFT, LM, SPECIAL, TOKENIZER

from antiphon.export.checkpoint import Reference
from antiphon.export.checkpoint_writer import Extras, save_checkpoint
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz "  # by id, as texts and as codes


def make_lettered(folder: Path, *, alike: bool) -> Path:
    """Write `folder`/lettered and return it. alike: code i is embedded as letter i."""
    torch.set_num_threads(1)
    torch.manual_seed(3)
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer()))
    reference = Reference(MossSpeechLM(LM), SpeechTokenizer(TOKENIZER), Flow(FLOW), Hift(HIFT))
    reference.tokenizer.encoder.codebook.weight.data.mul_(0.3)
    if alike:
        tables = reference.lm.model
        letters = tables.embed_tokens.weight.data[: len(LETTERS)]
        tables.audio_embed.weight.data[: len(LETTERS)] = letters
    extras = Extras(tokenizer_json=folder / "tokenizer.json")
    save_checkpoint(folder / "lettered", reference, extras, dtype="fp32")
    return folder / "lettered"


def _tokenizer() -> dict:
    """One id for each letter, one for everything else; special tokens where the model has them."""
    words = [*LETTERS, "?"]
    words += [f"unused{i}" for i in range(len(words), min(SPECIAL))]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": i, "content": text, "special": True} | flags for i, text in SPECIAL.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Split",
            "pattern": {"Regex": r"[\s\S]"},
            "behavior": "Isolated",
            "invert": False,
        },
        "decoder": {"type": "Fuse"},
        "model": {
            "type": "WordLevel",
            "vocab": {word: i for i, word in enumerate(words)},
            "unk_token": "?",
        },
    }
