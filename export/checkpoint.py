"""A MOSS-Speech checkpoint folder, opened whole and read one tensor at a time.

DIR/MOSS-Speech and DIR/MOSS-Speech-Codec as published (contract H); nano's has DIR/voices too.
Every needed name and shape is compared with the reference modules when the folder is opened.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from torch import nn

from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import Prompts, SamplingConfig, SpecialTokens

from . import checkpoint_facts as facts
from .checkpoint_config import CODEC, LM, SPEAKER, check_folders, lm_config, tokenizer_config
from .reference.config import FlowConfig, HiftConfig, LMConfig, TokenizerConfig
from .reference.flow import Flow
from .reference.hift import Hift
from .reference.lm import MossSpeechLM
from .reference.speech_tokenizer import SpeechTokenizer
from .safetensors_files import WHOLE, open_safetensors, open_shards
from .speaker_file import check_speaker
from .tensor_files import Shapes, TensorFile, Weights, read_json
from .tensor_sizes import (
    WEIGHT_NORM,
    check_shapes,
    flow_config,
    hift_config,
    modern_weight_norm,
)
from .torch_files import open_torch

FileKey = Literal["lm", "tokenizer", "flow", "hift"]
FILE_KEYS: tuple[FileKey, ...] = get_args(FileKey)
AnyConfig = LMConfig | TokenizerConfig | FlowConfig | HiftConfig
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
    """One opened checkpoint. Its files stay open, not in memory, until the object is dropped."""

    def __init__(self, directory: Path, *, chunk: int = 5) -> None:
        """Open and check DIR; `chunk` chooses `flow/flow-chunk-N.pt`: N tokens per chunk."""
        self.directory = directory
        check_folders(directory)
        self._lm, self._codec = directory / LM, directory / CODEC
        self.lm_config, self.tokenizer_config = lm_config(directory), tokenizer_config(directory)
        self._raw = read_json(self._lm / "config.json")
        mel_bins = self.tokenizer_config.num_mel_bins
        features = self._codec / "preprocessor_config.json"
        self.log_mel_max = facts.log_mel_max(features, mel_bins)  # for the streaming encoder
        self._files = {key: open_tensors(directory, key, chunk) for key in FILE_KEYS}
        self.flow_config = flow_config(self._files["flow"], chunk)
        self.hift_config = hift_config(self._files["hift"])
        for key, file in self._files.items():
            check_tensors(key, file, self._config(key))

    @classmethod
    def open(cls, directory: Path | str, *, chunk: int = 5) -> Self:
        """Open DIR. Raises ConfigError for a setting, CorruptFile for a file or a tensor."""
        return cls(Path(directory), chunk=chunk)

    def names(self, key: FileKey) -> list[str]:
        """The needed tensors of one file, as the reference module names them."""
        return list(expected_shapes(self._config(key)))

    def shapes(self, key: FileKey) -> Shapes:
        """Shapes of the needed tensors of one file, by name."""
        return expected_shapes(self._config(key))

    def value_counts(self, key: FileKey) -> dict[str, int]:
        """How many values each needed tensor of one file has, by name."""
        return {
            name: math.prod(shape) for name, shape in expected_shapes(self._config(key)).items()
        }

    def read(self, key: FileKey, name: str) -> Weights:
        """One tensor as float32, under the name the reference module gives it."""
        return self._files[key].read(name)

    def read_rows(self, key: FileKey, name: str, start: int, stop: int) -> Weights:
        """Rows [start, stop) of one tensor's first axis as float32 [stop - start, ...].

        Only their bytes are read. Any number of threads may read at once.
        """
        return self._files[key].read_rows(name, start, stop)

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

    @cached_property
    def speaker(self) -> Path | None:
        """The speaker encoder's file, None without one. Raises CorruptFile naming its defect."""
        path = self.directory / SPEAKER
        if not path.exists():
            return None
        check_speaker(path, self.flow_config.speaker_dim)
        return path

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


def load_reference(directory: Path | str, *, chunk: int = 5) -> Reference:
    """Open DIR and load the four reference modules, strictly, as float32."""
    return Checkpoint.open(directory, chunk=chunk).reference()


def open_tensors(directory: Path, key: FileKey, chunk: int) -> TensorFile:
    """The tensors of one part of the checkpoint, whatever they are. Raises CorruptFile."""
    codec = directory / CODEC
    if key == "lm":
        return open_shards(directory / LM)
    if key == "tokenizer":
        return open_safetensors(codec / WHOLE)
    if key == "flow":
        return open_torch(codec / "flow" / f"flow-chunk-{chunk}.pt")
    hift = open_torch(codec / "flow" / "hift.pt")
    return hift.renamed(modern_weight_norm(hift.shapes))


def check_tensors(key: FileKey, file: TensorFile, config: AnyConfig) -> None:
    """Raise CorruptFile unless the file holds what the reference module of these sizes has."""
    # the tokenizer's file holds a whole Whisper besides (contract D.2)
    check_shapes(file, expected_shapes(config), extras_allowed=key == "tokenizer")


def _on_meta(config: AnyConfig) -> nn.Module:
    try:
        with torch.device("meta"):
            return MODULES[type(config)](config)
    except (ValueError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise ConfigError(f"sizes no model can have ({error}): {config}") from error


@cache
def expected_shapes(config: AnyConfig) -> Shapes:
    """Names and shapes of a reference module's tensors."""
    return {name: tuple(t.shape) for name, t in _on_meta(config).state_dict().items()}
