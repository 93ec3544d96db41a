"""The two folders of a checkpoint and what their `config.json` say: found, bounded, told apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from antiphon.runtime.errors import ConfigError, CorruptFile

from .checkpoint_facts import check_special_sizes
from .reference.config import FlowConfig, LMConfig, TokenizerConfig
from .tensor_files import read_json

LM, CODEC = "MOSS-Speech", "MOSS-Speech-Codec"
SPEAKER = f"{CODEC}/flow/campplus.onnx"  # absent where no voice is to be added (contract G)
REPOSITORIES = "OpenMOSS-Team"  # where the two are published, on the Hugging Face Hub
MAX_SIZE = 1 << 24
MOST = {  # of what we would build as many modules of, or multiply with other sizes
    "num_hidden_layers": 1024,
    "num_shared_layers": 1024,
    "num_modality_layers": 1024,
    "quantize_position": 1024,
    "num_attention_heads": 1024,
    "num_key_value_heads": 1024,
    "encoder_attention_heads": 1024,
    "head_dim": 4096,
    "num_mel_bins": 1024,
    "rope_theta": 1e12,
}
TELLTALE = {LM: "audio_vocab_size", CODEC: "quantize_vocab_size"}  # only that model has it

Config = TypeVar("Config", LMConfig, TokenizerConfig)


def check_folders(directory: Path) -> None:
    """Raise CorruptFile unless DIR holds MOSS-Speech and MOSS-Speech-Codec, as folders."""
    layout = f"the folder that holds {LM} and {CODEC} side by side"
    if not directory.is_dir():
        raise CorruptFile(f"{directory}: no such folder; name {layout}")
    missing = [name for name in (LM, CODEC) if not (directory / name).is_dir()]
    if missing and (directory / "config.json").is_file():
        raise CorruptFile(f"{directory}: itself a model's folder; name {layout}")
    if len(missing) == 2:
        raise CorruptFile(f"{directory}: no {LM} and no {CODEC} in it; name {layout}")
    for name in missing:
        raise CorruptFile(
            f"{directory / name}: missing; download {REPOSITORIES}/{name} and put it there"
        )


def lm_config(directory: Path) -> LMConfig:
    """Sizes of the language model. Raises ConfigError or CorruptFile naming the field."""
    config = _parse(directory, LM, LMConfig.from_json)
    check_special_sizes(directory / LM / "config.json", config)
    return config


def tokenizer_config(directory: Path) -> TokenizerConfig:
    """Sizes of the speech tokenizer. Raises ConfigError or CorruptFile naming the field."""
    return _parse(directory, CODEC, TokenizerConfig.from_json)


def check_codes(lm: LMConfig, tokenizer: TokenizerConfig, flow: FlowConfig) -> None:
    """Raise ConfigError unless codes that are heard, thought of and said are the same ones."""
    heard, thought, said = tokenizer.quantize_vocab_size, lm.eosp_token_id, flow.vocab_size
    if heard > thought:
        raise ConfigError(
            f"{CODEC}/config.json: quantize_vocab_size is {heard}, but eosp_token_id of {LM} ends "
            f"its codes at {thought}; the two folders belong to different models"
        )
    if said < thought:
        raise ConfigError(
            f"{CODEC}/flow: input_embedding has {said} rows, but {LM} has {thought} codes to say; "
            "the two folders belong to different models"
        )


def _parse(directory: Path, part: str, from_json: Callable[[dict[str, Any]], Config]) -> Config:
    """Read DIR/part/config.json, naming the folder in every complaint."""
    raw = read_json(directory / part / "config.json")
    for other, telltale in TELLTALE.items():
        if other != part and telltale in raw and TELLTALE[part] not in raw:
            raise ConfigError(
                f"{directory / part / 'config.json'}: describes {other} (it states {telltale}); "
                "are the two folders swapped?"
            )
    try:
        config = from_json(raw)
    except ConfigError as error:
        raise ConfigError(f"{part}/{error}") from error
    for field in fields(config):
        value, most = getattr(config, field.name), MOST.get(field.name, MAX_SIZE)
        if not 0 <= value <= most:
            raise ConfigError(
                f"{part}/config.json: {field.name} is {value!r:.80}, expected from 0 to {most}"
            )
    return config
