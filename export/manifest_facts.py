"""What the manifest says of the model, as the checkpoint states it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import TypedDict

from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import (
    EncoderSizes,
    FlowSizes,
    LMSizes,
    Prompts,
    SamplingConfig,
    SpecialTokens,
    VocoderSizes,
)

from .checkpoint import Checkpoint
from .tensor_files import read_json

LM_CONFIG = "MOSS-Speech/config.json"
CODEC_CONFIG = "MOSS-Speech-Codec/config.json"
FEATURES = "MOSS-Speech-Codec/preprocessor_config.json"

LOG_MEL_MAX = 1.0  # loud speech lies between 0 and 2 (contract D.4)
CONTEXT_ROWS = 10_240  # longest conversation of the published fine-tuning (contract A.1)


class ModelFacts(TypedDict):
    """The fields of `Manifest` that do not depend on how the bundle is written."""

    lm: LMSizes
    encoder: EncoderSizes
    flow: FlowSizes
    vocoder: VocoderSizes
    tokens: SpecialTokens
    prompts: Prompts
    sampling: SamplingConfig
    log_mel_max: float
    sources: dict[str, str]


def model_facts(source: Checkpoint) -> ModelFacts:
    """Sizes, ids, prompts and settings. Raises ConfigError when they do not fit together.

    Two settings are ours and may be stated by a checkpoint: `log_mel_max` beside the features, and
    `max_position_embeddings` of the LM where it is below the published model's context.
    """
    directory, prompts = source.directory, source.prompts
    context = _number(directory / LM_CONFIG, "max_position_embeddings", CONTEXT_ROWS)
    return ModelFacts(
        lm=_lm(source, min(CONTEXT_ROWS, int(context))),
        encoder=EncoderSizes(
            mel_bins=source.tokenizer_config.num_mel_bins,
            code_count=source.tokenizer_config.quantize_vocab_size,
        ),
        flow=_flow(source),
        vocoder=_vocoder(source),
        tokens=_tokens(source),
        prompts=Prompts(spoken=prompts["speech"], text=prompts["text"]),
        sampling=SamplingConfig.from_dict(dict(source.sampling)),
        log_mel_max=float(_number(directory / FEATURES, "log_mel_max", LOG_MEL_MAX)),
        sources={path: _digest(directory / path) for path in (LM_CONFIG, CODEC_CONFIG)},
    )


def _lm(source: Checkpoint, context_rows: int) -> LMSizes:
    c = source.lm_config
    return LMSizes(
        text_vocab=c.vocab_size,
        audio_vocab=c.audio_vocab_size,
        hidden_size=c.hidden_size,
        head_dim=c.head_dim,
        kv_heads=c.num_key_value_heads,
        shared_layers=c.num_shared_layers,
        modality_layers=c.num_modality_layers,
        rope_theta=float(c.rope_theta),
        context_rows=context_rows,
    )


def _flow(source: Checkpoint) -> FlowSizes:
    c = source.flow_config
    return FlowSizes(
        mel_bins=c.mel_bins,
        width=c.width,
        speaker_dim=c.speaker_dim,
        steps=c.steps,
        chunk_tokens=c.chunk_tokens,
        lookahead_tokens=c.lookahead_tokens,
        mel_per_token=c.mel_per_token,
    )


def _vocoder(source: Checkpoint) -> VocoderSizes:
    c = source.hift_config
    return VocoderSizes(
        mel_bins=c.mel_bins,
        harmonics=c.harmonics,
        sample_rate_hz=c.sample_rate_hz,
        samples_per_frame=c.samples_per_frame,
    )


def _tokens(source: Checkpoint) -> SpecialTokens:
    ids = source.special_ids
    return SpecialTokens(
        endoftext=ids.end_of_text,
        im_start=ids.im_start,
        im_end=ids.im_end,
        sosp=ids.start_of_speech,
        modality_pad=ids.modality_pad,
        eosp=ids.end_of_speech,
        audio_pad=ids.audio_pad,
    )


def _number(path: Path, key: str, default: float) -> float:
    value = read_json(path).get(key, default)
    if type(value) not in (int, float):
        raise ConfigError(f"{path}: {key} is {value!r}, expected a number")
    return float(value)


def _digest(path: Path) -> str:
    return f"sha256 {sha256(path.read_bytes()).hexdigest()}"
