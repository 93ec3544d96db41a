"""Sizes of the reference model: every number a checkpoint can state is stated here."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Self

from antiphon.runtime.errors import ConfigError

SEGMENT_SAMPLES = 480_000  # at 16 kHz; segments are independent (contract D.3 step 2)
CODE_SAMPLES = 1280

# What the two `config.json` say of things that are built in one way only.
LM_CONSTANTS: dict[str, Any] = {
    "model_type": "moss_speech",
    "hidden_act": "silu",
    "rope_scaling": None,
    "attention_bias": False,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "channels": 2,
}
TOKENIZER_CONSTANTS: dict[str, Any] = {
    "activation_function": "gelu",
    "pooling_type": "avg",
    "pooling_kernel_size": 4,
    "quantize_encoder_only": True,
    "encoder_causal_attention": True,
    "encoder_causal_convolution": True,
    "scale_embedding": False,
}


def _from_json(cls: type[Any], raw: dict[str, Any], must_be: dict[str, Any]) -> dict[str, Any]:
    """Pick the fields of `cls` from a Hugging Face config; refuse values we do not implement."""
    required = {f.name for f in fields(cls) if f.default is f.default_factory}
    missing = sorted(required - raw.keys())
    if missing:
        raise ConfigError(f"config.json: missing {', '.join(missing)}; is this the right folder?")
    for f in fields(cls):
        kinds = (int,) if f.type == "int" else (int, float)
        if f.name in raw and type(raw[f.name]) not in kinds:
            kind = "an integer" if f.type == "int" else "a number"
            raise ConfigError(f"config.json: {f.name} is {raw[f.name]!r:.80}, expected {kind}")
    for key, expected in must_be.items():
        if key in raw and raw[key] != expected:
            raise ConfigError(f"config.json: {key} is {raw[key]!r}; only {expected!r} is supported")
    return {f.name: raw[f.name] for f in fields(cls) if f.name in raw}


@dataclass(frozen=True, slots=True, kw_only=True)
class LMConfig:
    """Language model, contract A.1. Field names are those of `config.json`."""

    vocab_size: int
    audio_vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_shared_layers: int
    num_modality_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float = 1e-6
    modality_pad_token_id: int = 151667
    sosp_token_id: int = 151646
    eosp_token_id: int = 16384
    audio_pad_token_id: int = 512  # a constant of the official processor, contract A.1
    max_position_embeddings: int = 40960

    def __post_init__(self) -> None:
        heads = {n: getattr(self, n) for n in ("num_attention_heads", "num_key_value_heads")}
        if min(heads.values()) < 1:
            raise ConfigError(f"config.json: {heads}, expected 1 or more of each")
        depth = self.num_shared_layers + self.num_modality_layers
        if self.num_hidden_layers != depth:
            raise ConfigError(
                f"config.json: num_hidden_layers is {self.num_hidden_layers}, expected "
                f"num_shared_layers + num_modality_layers = {depth} (contract A.1)"
            )
        if self.head_dim % 2:
            raise ConfigError(f"config.json: head_dim {self.head_dim} is odd; RoPE needs halves")
        if self.num_attention_heads % self.num_key_value_heads:
            raise ConfigError(
                f"config.json: {self.num_attention_heads} attention heads cannot share "
                f"{self.num_key_value_heads} key-value heads"
            )

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Read `config.json` of MOSS-Speech. Raises ConfigError naming the field."""
        return cls(**_from_json(cls, raw, LM_CONSTANTS))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerConfig:
    """Speech tokenizer, contract D.1. Field names are those of the codec's `config.json`."""

    d_model: int
    encoder_attention_heads: int
    encoder_ffn_dim: int
    quantize_position: int  # layers that are built; `encoder_layers` counts unused ones too
    quantize_vocab_size: int
    num_mel_bins: int = 128
    max_source_positions: int = 1500
    pooling_kernel_size: int = 4

    def __post_init__(self) -> None:
        if self.max_source_positions < self.pooling_kernel_size:
            raise ConfigError(
                f"config.json: max_source_positions is {self.max_source_positions}, expected at "
                f"least the {self.pooling_kernel_size} that one code takes"
            )
        if self.encoder_attention_heads < 1 or self.d_model % self.encoder_attention_heads:
            raise ConfigError(
                f"config.json: encoder_attention_heads is {self.encoder_attention_heads}, expected "
                f"a divisor of d_model {self.d_model}"
            )

    @property
    def segment_samples(self) -> int:
        """30 s, or what the positions reach: there everything restarts (contract D.3, D.5)."""
        codes = self.max_source_positions // self.pooling_kernel_size
        return min(SEGMENT_SAMPLES, codes * CODE_SAMPLES)

    @classmethod
    def from_json(cls, raw: dict[str, Any]) -> Self:
        """Read `config.json` of MOSS-Speech-Codec. Raises ConfigError naming the field."""
        must_be = TOKENIZER_CONSTANTS | {"pooling_position": raw.get("quantize_position")}
        return cls(**_from_json(cls, raw, must_be))


@dataclass(frozen=True, slots=True, kw_only=True)
class FlowConfig:
    """Flow-matching decoder, contract E.1. The defaults are the real model's."""

    vocab_size: int = 20480
    width: int = 512  # encoder
    heads: int = 8
    ffn: int = 2048
    blocks: int = 6  # at 12.5 Hz
    up_blocks: int = 4  # at 50 Hz
    speaker_dim: int = 192
    mel_bins: int = 80
    channels: int = 256  # estimator
    transformer_heads: int = 8  # of 64
    transformers: int = 4  # per resnet
    mid_blocks: int = 12
    chunk_tokens: int = 5
    lookahead_tokens: int = 3
    mel_per_token: int = 4
    cfg_rate: float = 0.7
    steps: int = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class HiftConfig:
    """HiFT vocoder, contract F.1. The defaults are the real model's."""

    mel_bins: int = 80
    base_channels: int = 512
    f0_channels: int = 512
    harmonics: int = 8
    sample_rate_hz: int = 24000
    upsample_rates: tuple[int, ...] = (8, 5, 3)
    upsample_kernels: tuple[int, ...] = (16, 11, 7)
    resblock_kernels: tuple[int, ...] = (3, 7, 11)
    source_kernels: tuple[int, ...] = (7, 7, 11)
    dilations: tuple[int, ...] = (1, 3, 5)
    n_fft: int = 16
    hop: int = 4
    samples_per_frame: int = 480
    sine_amplitude: float = 0.1
    noise_std: float = 0.003
    voiced_threshold_hz: float = 10.0
    audio_limit: float = 0.99
