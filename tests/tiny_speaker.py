"""A speaker encoder with the interface of the published one (contract G), and bundles with it."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper, save
from tiny_bundle import engine_entry, write_manifest

DIM = 192


@cache
def weight(dim: int = DIM) -> np.ndarray:
    return np.random.default_rng(21).standard_normal((80, dim), np.float32)


def speaker_model(
    *,
    dim: int = DIM,
    input_shape: tuple[int | str, ...] = ("batch", "frames", 80),
    output_shape: tuple[int | str, ...] | None = ("batch", DIM),
    dtype: int = TensorProto.FLOAT,
) -> ModelProto:
    """`output = mean over time of |features| @ weight`, in an old opset, as such files are."""
    nodes = [
        helper.make_node("Abs", ["feature"], ["size"]),
        helper.make_node("ReduceMean", ["size"], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "w"], ["vector"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("feature", dtype, input_shape)],
        [helper.make_tensor_value_info("vector", TensorProto.FLOAT, output_shape)],
        [numpy_helper.from_array(weight(dim), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=6)


def embed(features: np.ndarray) -> np.ndarray:
    """What the model makes of features [T, 80]."""
    return np.abs(features).mean(axis=0) @ weight()


def add_speaker(folder: Path, model: ModelProto | None = None) -> Path:
    """Put the engine into the bundle at `folder`, and into its manifest."""
    save(speaker_model() if model is None else model, folder / "speaker.onnx")
    raw = json.loads((folder / "manifest.json").read_text())
    raw["engines"]["speaker"] = asdict(engine_entry(folder, "speaker"))
    write_manifest(folder, raw)
    return folder


def with_speaker(bundle_folder: Path, folder: Path, model: ModelProto | None = None) -> Path:
    """A copy of a bundle that has a speaker engine."""
    return add_speaker(Path(shutil.copytree(bundle_folder, folder)), model)


def utterance(seconds: float, rate_hz: int = 24_000, seed: int = 1) -> np.ndarray:
    """Sound whose pitch, colour and level change every 80 ms, [S] float32 well inside ±1."""
    rng, samples = np.random.default_rng(seed), round(seconds * rate_hz)
    steps = round(0.08 * rate_hz)
    slow = rng.random((3, samples // steps + 1)).repeat(steps, axis=1)[:, :samples]
    tone = np.sin(2 * np.pi * np.cumsum(80 + 200 * slow[0]) / rate_hz)
    noise = rng.standard_normal(samples)
    pcm = (0.1 + 0.3 * slow[1]) * (slow[2] * tone + 0.3 * (1 - slow[2]) * noise)
    return np.clip(pcm, -0.9, 0.9).astype(np.float32)
