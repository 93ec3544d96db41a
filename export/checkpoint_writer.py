"""Write a checkpoint folder in the published layout (contract H and K): whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from antiphon.runtime.errors import ConfigError

from .checkpoint import Reference
from .checkpoint_facts import FEATURES
from .reference.config import (
    LM_CONSTANTS,
    TOKENIZER_CONSTANTS,
    FlowConfig,
    HiftConfig,
    LMConfig,
    TokenizerConfig,
)

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
State = dict[str, Tensor]
Number = bool | float | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Extras:
    """What a checkpoint holds besides its weights."""

    tokenizer_json: Path  # copied
    voices: Mapping[str, Mapping[str, NDArray[Any]]] = field(default_factory=dict)
    prompts: dict[str, str] | None = None  # {"speech": …, "text": …}; None: the official ones
    sampling: dict[str, Number] | None = None  # None: contract C.3
    log_mel_max: float | None = None  # what the streaming encoder assumes; None: export's default


def save_checkpoint(
    directory: Path | str,
    reference: Reference,
    extras: Extras,
    *,
    dtype: str = "fp16",
    shards: int = 2,
) -> None:
    """Write the four modules and `extras` as DIR, which must not exist yet.

    dtype "fp16" or "fp32" is how every tensor is stored; `shards` counts the LM's files. All is
    written to a folder beside DIR and renamed at the end.
    """
    directory = Path(directory)
    if dtype not in DTYPES or shards < 1:
        raise ConfigError(f"dtype {dtype!r}, shards {shards}: expected fp16 or fp32, and 1 or more")
    if directory.exists():
        raise ConfigError(f"{directory}: exists already; remove it or choose another name")
    partial = directory.with_name(f".{directory.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write_lm(partial / "MOSS-Speech", reference, extras, (DTYPES[dtype], shards))
        _write_codec(partial / "MOSS-Speech-Codec", reference, extras, DTYPES[dtype])
        for name, voice in extras.voices.items():
            (partial / "voices").mkdir(exist_ok=True)
            np.savez(partial / "voices" / f"{name}.npz", allow_pickle=False, **voice)
        partial.rename(directory)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def lm_json(c: LMConfig) -> dict[str, Any]:
    """`config.json` of MOSS-Speech (contract A.1)."""
    return asdict(c) | LM_CONSTANTS | {"architectures": ["MossSpeechForCausalLM"]}


def tokenizer_json(c: TokenizerConfig) -> dict[str, Any]:
    """`config.json` of MOSS-Speech-Codec (contract D.1)."""
    layers = dict.fromkeys(("encoder_layers", "pooling_position"), c.quantize_position)
    return asdict(c) | TOKENIZER_CONSTANTS | layers


def flow_yaml(f: FlowConfig, h: HiftConfig) -> str:
    """`flow/config.yaml`: for people; the sizes are read from the tensors (contract K)."""
    values = {f"flow_{name}": value for name, value in asdict(f).items()}
    values |= {f"hift_{name}": value for name, value in asdict(h).items()}
    lines = [f"{n}: {list(v) if isinstance(v, tuple) else v}" for n, v in values.items()]
    return "\n".join(lines) + "\n"


def _write_lm(folder: Path, reference: Reference, extras: Extras, how: tuple[Any, int]) -> None:
    folder.mkdir(parents=True)
    dtype, shards = how
    optional = {"prompts": extras.prompts, "sampling": extras.sampling}
    config = lm_json(reference.lm.config) | {n: v for n, v in optional.items() if v is not None}
    _write_json(folder / "config.json", config)
    shutil.copyfile(extras.tokenizer_json, folder / "tokenizer.json")
    state = _stored(reference.lm.state_dict(), dtype)
    weight_map: dict[str, str] = {}
    for number, names in enumerate(_split(state, shards), start=1):
        file = f"model-{number:05d}-of-{shards:05d}.safetensors"
        save_file({name: state[name] for name in names}, folder / file, {"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    total = sum(tensor.nbytes for tensor in state.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    _write_json(folder / "model.safetensors.index.json", index)


def _write_codec(folder: Path, reference: Reference, extras: Extras, dtype: torch.dtype) -> None:
    (folder / "flow").mkdir(parents=True)
    tokenizer, flow, hift = reference.tokenizer, reference.flow, reference.hift
    _write_json(folder / "config.json", tokenizer_json(tokenizer.config))
    features: dict[str, Any] = FEATURES | {
        "feature_size": tokenizer.config.num_mel_bins,
        "chunk_length": 30,
    }
    if extras.log_mel_max is not None:
        features |= {"log_mel_max": extras.log_mel_max}
    _write_json(folder / "preprocessor_config.json", features)
    save_file(
        _stored(tokenizer.state_dict(), dtype), folder / "model.safetensors", {"format": "pt"}
    )
    (folder / "flow" / "config.yaml").write_text(flow_yaml(flow.config, hift.config), "utf-8")
    state: dict[str, Any] = {**_stored(flow.state_dict(), dtype), "epoch": 0, "step": 0}
    torch.save(state, folder / "flow" / f"flow-chunk-{flow.config.chunk_tokens}.pt")
    torch.save(_stored(hift.state_dict(), dtype), folder / "flow" / "hift.pt")


def _stored(state: Mapping[str, Tensor], dtype: torch.dtype) -> State:
    """Private contiguous CPU copies in the stored type. Raises ConfigError on overflow."""
    stored = {n: t.detach().to("cpu", dtype, copy=True).contiguous() for n, t in state.items()}
    for name, tensor in stored.items():
        if not tensor.isfinite().all():
            raise ConfigError(f"{name} is not finite as {dtype}; store the checkpoint as fp32")
    return stored


def _split(state: State, parts: int) -> list[list[str]]:
    """Names in order, cut into `parts` runs of about equal bytes."""
    total, done = sum(tensor.nbytes for tensor in state.values()), 0
    runs: list[list[str]] = [[] for _ in range(parts)]
    for name, tensor in state.items():
        runs[min(parts - 1, done * parts // total)].append(name)
        done += tensor.nbytes
    return runs


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")
