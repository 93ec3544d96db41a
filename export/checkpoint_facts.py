"""What a checkpoint says besides its tensors: special ids, prompts, sampling, voices."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.bundle_files import read_voice as read_bundled
from antiphon.runtime.errors import AntiphonError, ConfigError, CorruptFile
from antiphon.runtime.manifest import FlowSizes, Prompts, SamplingConfig, SpecialTokens
from antiphon.runtime.prompt import SPOKEN_PROMPT, TEXT_PROMPT
from antiphon.runtime.text import TextTokenizer

from .reference.config import FlowConfig, LMConfig
from .tensor_files import read_json

PROMPTS = {"speech": SPOKEN_PROMPT, "text": TEXT_PROMPT}
FEATURES = {"n_fft": 400, "hop_length": 160, "sampling_rate": 16000}  # contract D.1
LOG_MEL_MAX = 1.0  # loud speech lies between 0 and 2 (contract D.4)
ALL_IDS = 1 << 24
LOUDEST = 100.0  # no power of a float32 sample has a larger logarithm


def special_ids(tokenizer_json: Path, c: LMConfig) -> SpecialTokens:
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
    return SpecialTokens(
        endoftext=ids["<|endoftext|>"],
        im_start=ids["<|im_start|>"],
        im_end=ids["<|im_end|>"],
        sosp=c.sosp_token_id,
        modality_pad=c.modality_pad_token_id,
        eosp=c.eosp_token_id,
        audio_pad=c.audio_pad_token_id,
    )


def check_text_tokenizer(path: Path, tokens: SpecialTokens, c: LMConfig) -> None:
    """Raise CorruptFile unless the tokenizers library reads the file and means the same ids.

    Raises ConfigError when it knows ids that have no row in the embedding.
    """
    try:
        tokenizer = TextTokenizer(path)
    except CorruptFile as error:
        raise CorruptFile(f"{path}: {_reason(error)}; download it again") from error
    literals = {
        "<|endoftext|>": tokens.endoftext,
        "<|im_start|>": tokens.im_start,
        "<|im_end|>": tokens.im_end,
        "<|object_ref_start|>": tokens.sosp,
    }
    for text, expected in literals.items():
        if (got := tokenizer.encode(text)) != [expected]:
            raise CorruptFile(
                f"{path}: {text} becomes {got!r:.80}, expected [{expected}] as its added_tokens "
                "say; download it again"
            )
    if tokenizer.id_count > c.vocab_size:
        raise ConfigError(
            f"{path}: knows {tokenizer.id_count} tokens, vocab_size of config.json is "
            f"{c.vocab_size}; the two files belong to different models"
        )


def _added_tokens(path: Path) -> dict[str, int]:
    try:
        return {str(t["content"]): int(t["id"]) for t in read_json(path)["added_tokens"]}
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptFile(f"{path}: no usable added_tokens ({error!r})") from error


def check_special_sizes(path: Path, c: LMConfig) -> None:
    """Raise ConfigError unless every special id has a row in its embedding (contract K).

    The audio pad needs none: text rows are never looked up there (contract A.3).
    """
    text = {"modality_pad_token_id": c.modality_pad_token_id, "sosp_token_id": c.sosp_token_id}
    audio = {"eosp_token_id": c.eosp_token_id}
    for ids, rows in ((text, c.vocab_size), (audio, c.audio_vocab_size)):
        for field, value in ids.items():
            if not 0 <= value < rows:
                raise ConfigError(f"{path}: {field} is {value}, expected an id below {rows}")


def prompts(path: Path, raw: dict[str, Any]) -> Prompts:
    """System prompts for a spoken and for a written reply; `raw` is the config at `path`."""
    found = raw.get("prompts", PROMPTS)
    if (
        not isinstance(found, dict)
        or found.keys() != PROMPTS.keys()
        or not all(isinstance(text, str) for text in found.values())
    ):
        raise ConfigError(f"{path}: prompts is {found!r}, expected texts for speech and text")
    return Prompts(spoken=found["speech"], text=found["text"])


def sampling(path: Path, raw: dict[str, Any]) -> SamplingConfig:
    """Sampling defaults: contract C.3, then generation_config.json, then `sampling` in `raw`."""
    generation_path = path.with_name("generation_config.json")
    generation = read_json(generation_path) if generation_path.exists() else {}
    own, names = raw.get("sampling", {}), [field.name for field in fields(SamplingConfig)]
    if not isinstance(own, dict) or own.keys() - set(names):
        raise ConfigError(f"{path}: sampling is {own!r}, expected some of {', '.join(names)}")
    # the library's file also holds token ids and version notes, and null for "not set"
    known = {name: v for name, v in generation.items() if name in names and v is not None}
    if known.get("top_k") == 0:  # the library's way to say: of all ids
        known["top_k"] = ALL_IDS
    if known.get("temperature") == 0 and known.get("do_sample") is False:
        del known["temperature"]  # which then counts for nothing
    try:
        return SamplingConfig.from_dict(known | own)
    except AntiphonError as error:
        raise ConfigError(
            f"{path.parent}: {_reason(error)}; correct sampling in config.json, or "
            "generation_config.json"
        ) from error


def log_mel_max(path: Path, mel_bins: int) -> float:
    """Loudest log10 bin the streaming encoder shall assume, stated at `path` or ours.

    Raises ConfigError unless `preprocessor_config.json` describes the log-mel of contract D.3.
    """
    raw = read_json(path)
    for name, expected in (FEATURES | {"feature_size": mel_bins}).items():
        if raw.get(name, expected) != expected:
            raise ConfigError(f"{path}: {name} is {raw[name]!r}, expected {expected}")
    value = raw.get("log_mel_max", LOG_MEL_MAX)
    if type(value) not in (int, float) or not abs(value) <= LOUDEST:
        raise ConfigError(f"{path}: log_mel_max is {value!r:.80}, expected a number like 1.0")
    return float(value)


def flow_sizes(c: FlowConfig) -> FlowSizes:
    """What the runtime knows of the flow decoder."""
    return FlowSizes(
        mel_bins=c.mel_bins,
        width=c.width,
        speaker_dim=c.speaker_dim,
        steps=c.steps,
        chunk_tokens=c.chunk_tokens,
        lookahead_tokens=c.lookahead_tokens,
        mel_per_token=c.mel_per_token,
    )


def read_voice(path: Path, c: FlowConfig, code_count: int) -> Voice:
    """A voice as the runtime will read it; its prompt may be empty (contract E.8)."""
    try:
        return read_bundled(path, flow_sizes(c), code_count)
    except CorruptFile as error:
        raise CorruptFile(f"{path.parent}: {_reason(error)}; enrol it again") from error


def _reason(error: AntiphonError) -> str:
    """What the runtime found, without its way out: another one holds for a checkpoint."""
    return str(error).rpartition("; ")[0]
