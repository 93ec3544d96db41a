"""`python -m benchmarks.lookalike OUT`: the published checkpoint layout with random numbers.

Stands in for weights that are not at hand, at real size if asked: the language model is written
shard by shard from a few megabytes of random numbers, so that the disk sets the pace and memory
stays small. What is whole is kept if the command is interrupted and started again.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import shutil
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from antiphon.runtime.errors import AntiphonError, CapacityError, ConfigError

from .layout import (
    FEATURES,
    SMALL,
    YAML,
    Shape,
    Shapes,
    Sizes,
    junk,
    layer_by_layer,
    split,
    text_tokenizer,
)

LM, CODEC = "MOSS-Speech", "MOSS-Speech-Codec"
SHARD_BYTES = 5 * 10**9  # the published four are just below
POOL_VALUES = 1_048_573  # a prime, so that rows of a tensor do not repeat
ITEM_BYTES = {"F32": 4, "BF16": 2}
SPEAKER_WIDTH = 24_576  # makes the speaker encoder's file as large as the published one
STAMP = "lookalike.json"
Bytes = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Numbers:
    """Random values by tensor name: the same for the same seed, whatever is written when."""

    seed: int = 0

    def blocks(self, name: str, shape: Shape, dtype: str) -> Iterator[Bytes]:
        """The tensor's bytes, in blocks that share memory: some pool, from a place of its own."""
        mean, spread = scale(name, shape)
        pool = _pool(self.seed, mean, spread, dtype).view(np.uint8)
        size = ITEM_BYTES[dtype]
        left, at = math.prod(shape) * size, zlib.crc32(name.encode()) % POOL_VALUES * size
        while left > 0:
            block = pool[at : at + left]
            yield block
            left, at = left - len(block), 0

    def array(self, name: str, shape: Shape) -> NDArray[np.float32]:
        """The tensor as float32."""
        return np.concatenate([*self.blocks(name, shape, "F32")]).view(np.float32).reshape(shape)


def scale(name: str, shape: Shape) -> tuple[float, float]:
    """Mean and standard deviation that keep activations in the range of a trained model."""
    leaf = name.rpartition(".")[2]
    if leaf in ("alpha", "original0", "weight_g") or (leaf == "weight" and len(shape) == 1):
        return 1.0, 0.05
    if len(shape) == 1 or "bias" in leaf:
        return 0.0, 0.02
    return 0.0, 1.0 / math.sqrt(math.prod(shape[1:]))


@functools.lru_cache(maxsize=8)
def _pool(seed: int, mean: float, spread: float, dtype: str) -> NDArray[Any]:
    values = np.random.default_rng(seed).standard_normal(POOL_VALUES, np.float32)
    values = values * np.float32(spread) + np.float32(mean)
    if dtype == "F32":
        return values
    bits = values.view(np.uint32)  # to the nearest, halves to even
    return ((bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) >> 16).astype(np.uint16)


def header(shapes: Shapes, dtype: str) -> bytes:
    """The beginning of a safetensors file, up to its first tensor."""
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    at = 0
    for name, shape in shapes.items():
        end = at + math.prod(shape) * ITEM_BYTES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def write_safetensors(path: Path, shapes: Shapes, dtype: str, numbers: Numbers) -> None:
    """One file of random tensors, streamed."""
    with path.open("wb") as file:
        file.write(header(shapes, dtype))
        for name, shape in shapes.items():
            for block in numbers.blocks(name, shape, dtype):
                file.write(block.data)


def write_torch(path: Path, shapes: Shapes, numbers: Numbers, **others: int) -> None:
    """A flat dict of random tensors, and of `others`, by `torch.save`."""
    import torch

    state = {name: torch.from_numpy(numbers.array(name, shape)) for name, shape in shapes.items()}
    torch.save(state | others, path)


def write_speaker(path: Path, width: int, numbers: Numbers) -> None:
    """A speaker encoder of the contract's inputs and outputs: fbank [1, T, 80] -> [1, 192]."""
    import onnx
    from onnx import helper, numpy_helper

    float32 = onnx.TensorProto.FLOAT
    weights = {"up": (80, width), "down": (width, 192)}
    initializers = [
        numpy_helper.from_array(numbers.array(name, shape) / 8, name)
        for name, shape in weights.items()
    ]
    initializers.append(numpy_helper.from_array(np.array([1]), "time"))
    nodes = [
        helper.make_node("MatMul", ["fbank", "up"], ["wide"]),
        helper.make_node("Tanh", ["wide"], ["bent"]),
        helper.make_node("ReduceMean", ["bent", "time"], ["mean"], keepdims=0),
        helper.make_node("MatMul", ["mean", "down"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "speaker",
        [helper.make_tensor_value_info("fbank", float32, [1, "T", 80])],
        [helper.make_tensor_value_info("embedding", float32, [1, 192])],
        initializers,
    )
    opset = [helper.make_opsetid("", 18)]
    path.write_bytes(
        helper.make_model(graph, opset_imports=opset, ir_version=9).SerializeToString()
    )


def write_voice(path: Path, codes: int = 40) -> None:
    """A voice of noise, so that an export needs no recording."""
    random = np.random.default_rng(0)
    np.savez(
        path,
        prompt_codes=random.integers(0, 16384, codes),
        prompt_mel=random.normal(-5, 2, (80, 4 * codes)).astype(np.float32),
        embedding=random.standard_normal(192, np.float32),
    )


def write_json(path: Path, value: object) -> None:
    """JSON as the published files have it."""
    path.write_text(json.dumps(value, indent=2), "utf-8")


Writer = Callable[[Path], object]


def _lm_files(sizes: Sizes, numbers: Numbers) -> dict[str, tuple[int, Writer]]:
    """The language model: shards, their index, settings, the text tokenizer."""
    shards = split(layer_by_layer(sizes.census("lm")), 2, SHARD_BYTES)
    names = [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    where = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {
        "metadata": {"total_size": 2 * _count(sizes.census("lm"))},
        "weight_map": dict(sorted(where.items())),
    }
    found: dict[str, tuple[int, Writer]] = {
        f"{LM}/{name}": (
            2 * _count(shard),
            functools.partial(write_safetensors, shapes=shard, dtype="BF16", numbers=numbers),
        )
        for name, shard in zip(names, shards, strict=True)
    }
    texts = {
        "config.json": sizes.lm_config(),
        "model.safetensors.index.json": index,
        "tokenizer.json": text_tokenizer(),
    }
    return found | {f"{LM}/{name}": _text_file(value) for name, value in texts.items()}


def _codec_files(sizes: Sizes, numbers: Numbers) -> dict[str, tuple[int, Writer]]:
    """Speech tokenizer with what it does not need, flow, vocoder, speaker encoder."""
    codec = sizes.census("tokenizer") | junk(sizes.of("tokenizer")["d"])
    flow, hift = sizes.census("flow"), sizes.hift()
    found: dict[str, tuple[int, Writer]] = {
        "config.json": _text_file(sizes.codec_config()),
        "preprocessor_config.json": _text_file(FEATURES),
        "model.safetensors": (
            4 * _count(codec),
            lambda path: write_safetensors(path, codec, "F32", numbers),
        ),
        "flow/flow-chunk-5.pt": (
            4 * _count(flow),
            lambda path: write_torch(path, flow, numbers, epoch=7, step=700),
        ),
        "flow/hift.pt": (4 * _count(hift), lambda path: write_torch(path, hift, numbers)),
        "flow/campplus.onnx": (
            4 * 272 * SPEAKER_WIDTH,
            lambda path: write_speaker(path, SPEAKER_WIDTH, numbers),
        ),
        "flow/config.yaml": (0, lambda path: path.write_text(YAML, "utf-8")),
    }
    return {f"{CODEC}/{name}": file for name, file in found.items()}


def _text_file(value: object) -> tuple[int, Writer]:
    return 4 << 20, functools.partial(write_json, value=value)


def files(sizes: Sizes, numbers: Numbers, *, voice: bool) -> dict[str, tuple[int, Writer]]:
    """Every file: its path, about how many bytes, and what writes it."""
    found = _lm_files(sizes, numbers) | _codec_files(sizes, numbers)
    return found | ({"voices/noise.npz": (1 << 20, write_voice)} if voice else {})


def make(out: Path, sizes: Sizes, *, seed: int = 0, voice: bool = False) -> None:
    """Write the checkpoint folder `out`, whole or not at all; go on where a run was cut off.

    Raises ConfigError when `out` exists, CapacityError when the disk has too little room.
    """
    if out.exists():
        raise ConfigError(f"{out}: exists already; remove it or choose another name")
    partial = out.absolute().with_name(f".{out.name}.partial")
    stamp = json.dumps({"seed": seed, "voice": voice, "sizes": asdict(sizes)}, default=dict)
    if partial.exists() and _text(partial / STAMP) != stamp:
        shutil.rmtree(partial)
    partial.mkdir(parents=True, exist_ok=True)
    (partial / STAMP).write_text(stamp, "utf-8")
    wanted = files(sizes, Numbers(seed), voice=voice)
    left = {name: job for name, job in wanted.items() if not (partial / name).exists()}
    needed, free = sum(size for size, _ in left.values()), shutil.disk_usage(partial).free
    if needed > free:
        raise CapacityError(
            f"{out}: takes {needed / 1e9:.1f} GB more, {free / 1e9:.1f} GB are free; make room"
        )
    for name, (_, write) in left.items():
        path = partial / name
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"unfinished-{path.name}")  # numpy wants its own ending
        write(unfinished)
        unfinished.rename(path)
        print(f"{name}: {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr, flush=True)
    (partial / STAMP).unlink()
    partial.rename(out)


def _count(shapes: Shapes) -> int:
    return sum(math.prod(shape) for shape in shapes.values())


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lookalike", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--real-size", action="store_true", help="20 GB; else 75 MB")
    parser.add_argument("--shared-layers", type=int, default=32, metavar="N")
    parser.add_argument("--modality-layers", type=int, default=4, metavar="N")
    parser.add_argument(
        "--old-weight-norm", action="store_true", help="spell the vocoder's as weight_g, weight_v"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument("--voice", action="store_true", help="add a voice of noise, to export with")
    args = parser.parse_args()
    symbols = {} if args.real_size else SMALL
    sizes = Sizes(symbols, args.shared_layers, args.modality_layers, args.old_weight_norm)
    try:
        make(args.out, sizes, seed=args.seed, voice=args.voice)
    except (AntiphonError, OSError) as error:
        print(f"lookalike: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
