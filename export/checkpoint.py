"""A MOSS-Speech checkpoint folder, opened whole and read one tensor at a time.

DIR/MOSS-Speech and DIR/MOSS-Speech-Codec as published (contract H); nano's has DIR/voices too.
Every needed name and shape is compared with the reference modules when the folder is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import numpy as np
import torch
from torch import nn

from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import Prompts, SamplingConfig, SpecialTokens

from . import checkpoint_facts as facts
from .reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from .reference.flow import Flow
from .reference.hift import Hift
from .reference.lm import MossSpeechLM
from .reference.speech_tokenizer import SpeechTokenizer
from .tensor_files import PickledTensors, Shapes, Shards, TensorFile, Weights, read_json
from .tensor_sizes import (
    WEIGHT_NORM,
    check_shapes,
    flow_config,
    hift_config,
    modern_weight_norm,
    shape_of,
)

FileKey = Literal["lm", "tokenizer", "flow", "hift"]
AnyConfig = LMConfig | TokenizerConfig | FlowConfig | HiftConfig
Config = TypeVar("Config", LMConfig, TokenizerConfig)
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
MODULES: dict[type[AnyConfig], Callable[..., nn.Module]] = {
    LMConfig: MossSpeechLM,
    TokenizerConfig: SpeechTokenizer,
    FlowConfig: Flow,
    HiftConfig: Hift,
}


@dataclass(frozen=True, slots=True)
class Reference:
    """The four reference modules, weights loaded."""

    lm: MossSpeechLM
    tokenizer: SpeechTokenizer
    flow: Flow
    hift: Hift


class Checkpoint:
    """One opened checkpoint. Its files stay memory-mapped until the object is dropped."""

    def __init__(self, directory: Path, *, chunk: int = 5) -> None:
        """Open and check DIR; `chunk` chooses `flow/flow-chunk-N.pt`: N tokens per chunk."""
        self.directory = directory
        self._lm, self._codec = directory / "MOSS-Speech", directory / "MOSS-Speech-Codec"
        self._raw = read_json(self._lm / "config.json")
        self.lm_config: LMConfig = _parse(self._lm, LMConfig.from_json)
        facts.check_special_sizes(self._lm / "config.json", self.lm_config)
        self.tokenizer_config: TokenizerConfig = _parse(self._codec, TokenizerConfig.from_json)
        mel_bins = self.tokenizer_config.num_mel_bins
        features = self._codec / "preprocessor_config.json"
        self.log_mel_max = facts.log_mel_max(features, mel_bins)  # for the streaming encoder
        hift = PickledTensors(self._codec / "flow" / "hift.pt")
        hift.rename(modern_weight_norm(hift.shapes))
        self._files: dict[FileKey, TensorFile] = {
            "lm": Shards.indexed(self._lm),
            "tokenizer": Shards.single(self._codec / "model.safetensors"),
            "flow": PickledTensors(self._codec / "flow" / f"flow-chunk-{chunk}.pt"),
            "hift": hift,
        }
        self.flow_config = flow_config(self._files["flow"], chunk)
        self.hift_config = hift_config(hift)
        self._check_tensors()

    @classmethod
    def open(cls, directory: Path | str, *, chunk: int = 5) -> Self:
        """Open DIR. Raises ConfigError for a setting, CorruptFile for a file or a tensor."""
        return cls(Path(directory), chunk=chunk)

    def names(self, key: FileKey) -> list[str]:
        """The needed tensors of one file, as the reference module names them."""
        return list(_shapes(self._config(key)))

    def value_counts(self, key: FileKey) -> dict[str, int]:
        """How many values each needed tensor of one file has, by name."""
        return {name: math.prod(shape) for name, shape in _shapes(self._config(key)).items()}

    def read(self, key: FileKey, name: str) -> Weights:
        """One tensor as float32, under the name the reference module gives it."""
        file = self._files[key]
        shape_of(file, name)
        return file.read(name)

    def fused(self, name: str) -> Weights:
        """A vocoder tensor such as `conv_pre.weight`, weight norm multiplied out (contract F.2)."""
        g_name, v_name = (name.removesuffix("weight") + leaf for leaf in WEIGHT_NORM)
        if g_name not in self._files["hift"].shapes:
            return self.read("hift", name)
        g, v = (self.read("hift", n).astype(np.float64) for n in (g_name, v_name))
        fused: Weights = g * v / np.sqrt(np.square(v).sum(axis=(1, 2), keepdims=True))
        return fused.astype(np.float32)

    @property
    def tokenizer_json(self) -> Path:
        """The text tokenizer's file."""
        return self._lm / "tokenizer.json"

    @property
    def prompts(self) -> Prompts:
        """System prompts of a spoken and of a written reply."""
        return facts.prompts(self._lm / "config.json", self._raw)

    @property
    def sampling(self) -> SamplingConfig:
        """Sampling defaults (contract C.3)."""
        return facts.sampling(self._lm / "config.json", self._raw)

    @cached_property
    def special_ids(self) -> SpecialTokens:
        """Special ids. Raises ConfigError when tokenizer.json and config.json disagree."""
        return facts.special_ids(self.tokenizer_json, self.lm_config)

    @cached_property
    def voices(self) -> dict[str, Voice]:
        """Voice prompts by name, read once. Raises CorruptFile naming the voice."""
        codes = self.tokenizer_config.quantize_vocab_size
        paths = sorted((self.directory / "voices").glob("*.npz"))
        return {path.stem: facts.read_voice(path, self.flow_config, codes) for path in paths}

    def reference(self) -> Reference:
        """The reference modules with this checkpoint's weights, float32, in evaluation mode."""

        def loaded(key: FileKey) -> Any:
            module = _on_meta(self._config(key))
            state = {name: torch.from_numpy(self.read(key, name)) for name in self.names(key)}
            module.load_state_dict(state, strict=True, assign=True)
            return module.eval().requires_grad_(False)

        return Reference(loaded("lm"), loaded("tokenizer"), loaded("flow"), loaded("hift"))

    def _config(self, key: FileKey) -> AnyConfig:
        config: AnyConfig = getattr(self, f"{key}_config")
        return config

    def _check_tensors(self) -> None:
        for key, file in self._files.items():
            # the tokenizer's file holds a whole Whisper besides (contract D.2)
            check_shapes(file, _shapes(self._config(key)), extras_allowed=key == "tokenizer")


def load_reference(directory: Path | str, *, chunk: int = 5) -> Reference:
    """Open DIR and load the four reference modules, strictly, as float32."""
    return Checkpoint.open(directory, chunk=chunk).reference()


def _on_meta(config: AnyConfig) -> nn.Module:
    try:
        with torch.device("meta"):
            return MODULES[type(config)](config)
    except (ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise ConfigError(f"sizes no model can have ({error}): {config}") from error


@cache
def _shapes(config: AnyConfig) -> Shapes:
    """Names and shapes of a reference module's tensors."""
    return {name: tuple(t.shape) for name, t in _on_meta(config).state_dict().items()}


def _parse(folder: Path, from_json: Callable[[dict[str, Any]], Config]) -> Config:
    """Read `folder`/config.json, naming the folder in every complaint."""
    raw = read_json(folder / "config.json")
    try:
        config = from_json(raw)
    except ConfigError as error:
        raise ConfigError(f"{folder.name}/{error}") from error
    except (TypeError, ZeroDivisionError) as error:
        raise ConfigError(f"{folder.name}/config.json: {error}") from error
    for field in fields(config):
        value = getattr(config, field.name)
        whole, most = field.type == "int", MOST.get(field.name, MAX_SIZE)
        if type(value) not in ((int,) if whole else (int, float)) or not 0 <= value <= most:
            raise ConfigError(
                f"{folder.name}/config.json: {field.name} is {value!r:.80}, "
                f"expected {'an integer' if whole else 'a number'} from 0 to {most}"
            )
    return config
