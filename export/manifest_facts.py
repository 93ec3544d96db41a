"""What the manifest says of the model, as the checkpoint states it."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import TypedDict

from antiphon.runtime.errors import ConfigError, CorruptFile
from antiphon.runtime.manifest import (
    FORMAT_VERSION,
    EncoderSizes,
    FileEntry,
    FlowSizes,
    LMSizes,
    Manifest,
    Prompts,
    SamplingConfig,
    SpecialTokens,
    TableEntry,
    VocoderSizes,
)

from .checkpoint import Checkpoint
from .checkpoint_config import check_codes
from .checkpoint_facts import flow_sizes

LM_CONFIG = "MOSS-Speech/config.json"
CODEC_CONFIG = "MOSS-Speech-Codec/config.json"
VOICES = "voices"  # a folder, of the checkpoint and of the bundle

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
    check_codes(source.lm_config, source.tokenizer_config, source.flow_config)
    digests = {
        path: f"sha256 {sha256((source.directory / path).read_bytes()).hexdigest()}"
        for path in (LM_CONFIG, CODEC_CONFIG)
    }
    return ModelFacts(
        lm=_lm(source),
        encoder=EncoderSizes(
            mel_bins=source.tokenizer_config.num_mel_bins,
            code_count=source.tokenizer_config.quantize_vocab_size,
            segment_samples=source.tokenizer_config.segment_samples,
        ),
        flow=flow_sizes(source.flow_config),
        vocoder=_vocoder(source),
        tokens=source.special_ids,
        prompts=source.prompts,
        sampling=source.sampling,
        log_mel_max=source.log_mel_max,
        sources=digests,
    )


def draft(source: Checkpoint, *, name: str, target: str, weights: str) -> Manifest:
    """The manifest without its files: what cannot be stated is found out before hours of work.

    Raises ConfigError as `model_facts` does, and for a size that no bundle may have.
    """
    nothing = absent("absent")
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        target=target,
        weights=weights,
        **model_facts(source),
        engines={},
        text_embeddings=TableEntry(rows=nothing),
        audio_embeddings=TableEntry(rows=nothing),
        tokenizer=nothing,
        noise=nothing,
        voices={},
    )


def voice_entries(source: Checkpoint, recordings: Iterable[str]) -> dict[str, FileEntry]:
    """Voices by name, recorded ones first, their files not yet written.

    Raises ConfigError when there is none, or for a file whose name cannot be that of a voice.
    """
    names = [*recordings, *source.voices]
    if not names:
        raise ConfigError(
            f"{source.directory / VOICES}: no voice; make one of a recording with --voice "
            "NAME=FILE.wav, or put a NAME.npz with prompt_codes, prompt_mel and embedding there"
        )
    try:
        return {name: absent(f"{VOICES}/{name}.npz") for name in names}
    except CorruptFile as error:
        bad = next(name for name in names if repr(f"{VOICES}/{name}.npz") in str(error))
        raise ConfigError(
            f"{source.directory / VOICES}: {bad!r} cannot name a voice; rename the file to at "
            "most 90 letters, digits, dots, hyphens and underscores, a letter or digit first"
        ) from error


def absent(name: str) -> FileEntry:
    """Stands for a file that is not written yet."""
    return FileEntry(file=name, sha256="0" * 64, size_bytes=0)


def _lm(source: Checkpoint) -> LMSizes:
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
        context_rows=min(CONTEXT_ROWS, c.max_position_embeddings),
    )


def _vocoder(source: Checkpoint) -> VocoderSizes:
    c = source.hift_config
    return VocoderSizes(
        mel_bins=c.mel_bins,
        harmonics=c.harmonics,
        sample_rate_hz=c.sample_rate_hz,
        samples_per_frame=c.samples_per_frame,
    )
