"""What a checkpoint says besides its tensors: special ids, prompts, sampling, voices."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.errors import ConfigError, CorruptFile

from .reference.config import FlowConfig, LMConfig
from .tensor_files import read_json

Voice = dict[str, NDArray[Any]]
Number = bool | float | int

PROMPTS = {  # contract B.2
    "speech": "You are a helpful voice assistant. Answer the user's questions with spoken "
    "responses.",
    "text": "You are a helpful assistant. Answer the user's questions with text.",
}
SAMPLING: dict[str, Number] = {  # contract C.3, first column
    "do_sample": True,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
    "repetition_penalty": 1.1,
    "max_new_tokens": 500,
    "min_new_tokens": 0,
}
FEATURES = {"n_fft": 400, "hop_length": 160, "sampling_rate": 16000}  # contract D.1


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecialIds:
    """Ids that steer a conversation: the last two of the audio channel, the others of the text."""

    end_of_text: int
    im_start: int
    im_end: int
    start_of_speech: int
    modality_pad: int
    end_of_speech: int
    audio_pad: int


def special_ids(tokenizer_json: Path, c: LMConfig) -> SpecialIds:
    """Found by their literal strings among the added tokens (contract B.1).

    The published tokenizer's string for the modality pad is not established: that id comes from
    `config.json`, and only a contradiction is refused.
    """
    ids = _added_tokens(tokenizer_json)
    wanted = {"<|object_ref_start|>": ("sosp_token_id", c.sosp_token_id)}
    if "<think>" in ids:
        wanted["<think>"] = ("modality_pad_token_id", c.modality_pad_token_id)
    for literal, (field, expected) in wanted.items():
        if ids.get(literal) != expected:
            raise ConfigError(
                f"{tokenizer_json}: {literal} has id {ids.get(literal)}, but {field} of "
                f"config.json is {expected}; the two files belong to different models"
            )
    missing = [text for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>") if text not in ids]
    if missing:
        raise ConfigError(f"{tokenizer_json}: no added token {', '.join(missing)}")
    return SpecialIds(
        end_of_text=ids["<|endoftext|>"],
        im_start=ids["<|im_start|>"],
        im_end=ids["<|im_end|>"],
        start_of_speech=c.sosp_token_id,
        modality_pad=c.modality_pad_token_id,
        end_of_speech=c.eosp_token_id,
        audio_pad=c.audio_pad_token_id,
    )


def _added_tokens(path: Path) -> dict[str, int]:
    try:
        return {str(t["content"]): int(t["id"]) for t in read_json(path)["added_tokens"]}
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path}: no usable added_tokens ({error!r})") from error


def check_special_sizes(path: Path, c: LMConfig) -> None:
    """Raise ConfigError unless every special id has a row in its embedding (contract K)."""
    text = {"modality_pad_token_id": c.modality_pad_token_id, "sosp_token_id": c.sosp_token_id}
    audio = {"eosp_token_id": c.eosp_token_id, "audio_pad_token_id": c.audio_pad_token_id}
    for ids, rows in ((text, c.vocab_size), (audio, c.audio_vocab_size)):
        for field, value in ids.items():
            if not 0 <= value < rows:
                raise ConfigError(f"{path}: {field} is {value}, expected an id below {rows}")


def prompts(path: Path, raw: dict[str, Any]) -> dict[str, str]:
    """System prompts for a spoken and for a written reply; `raw` is the config at `path`."""
    found = raw.get("prompts", PROMPTS)
    if (
        not isinstance(found, dict)
        or found.keys() != PROMPTS.keys()
        or not all(isinstance(text, str) for text in found.values())
    ):
        raise ConfigError(f"{path}: prompts is {found!r}, expected texts for speech and text")
    return dict(found)


def sampling(path: Path, raw: dict[str, Any]) -> dict[str, Number]:
    """Sampling defaults: contract C.3, then generation_config.json, then `sampling` in `raw`."""
    generation_path = path.with_name("generation_config.json")
    generation = read_json(generation_path) if generation_path.exists() else {}
    own = raw.get("sampling", {})
    if not isinstance(own, dict) or own.keys() - SAMPLING.keys():
        raise ConfigError(f"{path}: sampling is {own!r}, expected some of {', '.join(SAMPLING)}")
    # the library's file also holds token ids and version notes, and null for "not set"
    known = {name: v for name, v in generation.items() if name in SAMPLING and v is not None}
    merged: dict[str, Number] = SAMPLING | known | own
    for name, value in merged.items():
        if not isinstance(value, (bool, int, float)):
            raise ConfigError(f"{path.parent}: sampling default {name} is {value!r}, not a number")
    return merged


def check_features(path: Path, mel_bins: int) -> None:
    """Raise ConfigError unless `preprocessor_config.json` describes the log-mel of contract D.3."""
    raw = read_json(path)
    for name, expected in (FEATURES | {"feature_size": mel_bins}).items():
        if raw.get(name, expected) != expected:
            raise ConfigError(f"{path}: {name} is {raw[name]!r}, expected {expected}")


def read_voice(path: Path, c: FlowConfig, code_count: int) -> Voice:
    """One voice prompt: prompt_codes int64 [P], prompt_mel float32 [M, 4P], embedding [192]."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            voice: Voice = {name: archive[name] for name in archive.files}
        p = len(voice["prompt_codes"])
    except Exception as error:  # a damaged zip can raise anything
        raise CorruptFile(f"{path}: not a voice ({error!r}); enrol it again") from error
    wanted: dict[str, tuple[type[Any], tuple[int, ...]]] = {
        "prompt_codes": (np.int64, (p,)),
        "prompt_mel": (np.float32, (c.mel_bins, c.mel_per_token * p)),
        "embedding": (np.float32, (c.speaker_dim,)),
    }
    for name, (dtype, shape) in wanted.items():
        got = voice.get(name, np.empty(0, np.bool_))
        if got.dtype != dtype or got.shape != shape:
            raise CorruptFile(
                f"{path}: {name} is {got.dtype}{list(got.shape)}, "
                f"expected {np.dtype(dtype)}{list(shape)}; enrol it again"
            )
    codes = voice["prompt_codes"]
    if p and not 0 <= codes.min() <= codes.max() < code_count:
        raise CorruptFile(f"{path}: prompt_codes outside 0..{code_count - 1}; enrol it again")
    if not all(np.isfinite(voice[name]).all() for name in wanted):
        raise CorruptFile(f"{path}: holds values that are not finite; enrol it again")
    return voice
