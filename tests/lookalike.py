"""A small checkpoint with the names, types and files of the published one (contract H and K).

The layout is that of `benchmarks.layout`, which knows nothing of the reference modules.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.layout import CENSUS, FEATURES, SMALL, YAML, Shapes, Sizes, census, text_tokenizer
from benchmarks.layout import junk as junk_shapes
from benchmarks.lookalike import ITEM_BYTES, Numbers, header, write_speaker
from benchmarks.lookalike import write_json as write_text

SIZES = Sizes(SMALL)
KEYS = tuple(SMALL)
ADDED_TOKENS = {  # those that the model has a use for
    "<|endoftext|>": 151643,
    "<|im_start|>": 151644,
    "<|im_end|>": 151645,
    "<|object_ref_start|>": 151646,
    "<think>": 151667,
}

__all__ = ["ADDED_TOKENS", "census"]


def tensors(key: str) -> dict[str, Tensor]:
    """Small random tensors of one file."""
    generator = torch.Generator().manual_seed(len(key))
    dtype = torch.bfloat16 if CENSUS[key]["dtype"] == "BF16" else torch.float32
    return {
        name: (0.1 * torch.randn(shape, generator=generator)).to(dtype)
        for name, shape in SIZES.census(key).items()
    }


def junk(d: int) -> dict[str, Tensor]:
    """What the published tokenizer file seems to hold besides the needed tensors."""
    return {name: torch.full(shape, float("nan")) for name, shape in junk_shapes(d).items()} | {
        "encoder.ema_count": torch.zeros(16384, dtype=torch.int64)
    }


def make_lookalike(folder: Path) -> Path:
    """Write the checkpoint into `folder` and return it."""
    lm, codec = folder / "MOSS-Speech", folder / "MOSS-Speech-Codec"
    lm.mkdir(parents=True)
    (codec / "flow").mkdir(parents=True)
    write_json(lm / "config.json", SIZES.lm_config())
    write_json(lm / "tokenizer.json", text_tokenizer())
    write_lm(lm, tensors("lm"))
    write_json(codec / "config.json", SIZES.codec_config())
    write_json(codec / "preprocessor_config.json", FEATURES)
    save_file(tensors("tokenizer") | junk(64), codec / "model.safetensors")
    (codec / "flow" / "config.yaml").write_text(YAML)
    torch.save(tensors("flow") | {"epoch": 7, "step": 700}, codec / "flow" / "flow-chunk-5.pt")
    torch.save(tensors("hift"), codec / "flow" / "hift.pt")
    write_speaker(codec / "flow" / "campplus.onnx", 16, Numbers())
    return folder


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, value)


def write_hollow(path: Path, shapes: Shapes, dtype: str) -> None:
    """A safetensors file of zeros that the disk does not store."""
    text = header(shapes, dtype)
    with path.open("wb") as file:
        file.write(text)
        values = sum(math.prod(shape) for shape in shapes.values())
        file.truncate(len(text) + values * ITEM_BYTES[dtype])


def write_lm(folder: Path, state: Mapping[str, Tensor]) -> None:
    """Three shards, tensors dealt out like cards: nothing but the index knows where one is."""
    files = dict(zip(state, itertools.cycle(shard_names()), strict=False))
    for file in shard_names():
        save_file({name: t for name, t in state.items() if files[name] == file}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": files}
    write_json(folder / "model.safetensors.index.json", index)


def shard_names() -> list[str]:
    return [f"model-{number:05d}-of-00003.safetensors" for number in (1, 2, 3)]
