"""The speaker engine: a bundle opens with it and without it, and only if it is one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, TensorProto
from tiny import floats
from tiny_bundle import FLOW, write_bundle, write_manifest
from tiny_speaker import add_speaker, speaker_model

from antiphon.runtime.backend import Engine
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import CorruptFile
from antiphon.runtime.manifest import ENGINES, OPTIONAL_ENGINES

DIM = FLOW.speaker_dim


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_bundle(tmp_path / "tiny")


def speaker(**changes) -> ModelProto:
    return speaker_model(**{"dim": DIM, "output_shape": (1, DIM)} | changes)


def refused(folder: Path, model: ModelProto) -> str:
    add_speaker(folder, model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "load", None)
        with pytest.raises(CorruptFile) as caught:
            Bundle.open(folder)
    return str(caught.value)


def test_it_is_optional(folder: Path) -> None:
    assert OPTIONAL_ENGINES == ("speaker",)
    assert set(Bundle.open(folder).manifest.engines) == set(ENGINES)
    assert set(Bundle.open(add_speaker(folder, speaker())).manifest.engines) == {
        *ENGINES,
        "speaker",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"input_shape": (1, "T", 80)},
        {"input_shape": ("b", "t", "bins")},
        {"output_shape": ("b", DIM)},
        {"output_shape": ("b", "d")},
        {"output_shape": None},
    ],
)
def test_sizes_may_be_left_open(folder: Path, changes: dict) -> None:
    engine = Bundle.open(add_speaker(folder, speaker(**changes))).engine("speaker")
    (name,) = engine.inputs
    (vector,) = engine.run({name: np.ones((1, 9, 80), np.float32)}).values()
    assert vector.shape == (1, DIM)


@pytest.mark.parametrize(
    ("model", "got"),
    [
        (speaker(input_shape=(1, "T", 40)), "float32[1, 'T', 40], float32[1, 6]"),
        (speaker(input_shape=(1, 300, 80)), "float32[1, 300, 80], float32[1, 6]"),
        (speaker(input_shape=(2, "T", 80)), "float32[2, 'T', 80], float32[1, 6]"),
        (speaker(input_shape=("T", 80)), "float32['T', 80], float32[1, 6]"),
        (speaker(dtype=TensorProto.FLOAT16), "float16['batch', 'frames', 80], float32[1, 6]"),
        (speaker(output_shape=(1, 192)), "float32['batch', 'frames', 80], float32[1, 192]"),
        (speaker(output_shape=(1, 1, DIM)), "float32['batch', 'frames', 80], float32[1, 1, 6]"),
    ],
)
def test_another_interface_is_refused(folder: Path, model: ModelProto, got: str) -> None:
    expected = "expected one input float32[1, T, 80], any T, and an output float32[1, 6]"
    assert refused(folder, model) == f"speaker.onnx: {got}, {expected}; export the bundle again"


def test_one_input_exactly_and_an_output_at_least(folder: Path) -> None:
    two = speaker()
    two.graph.input.append(floats("more", 1))
    assert "float32[1], float32[1, 6], expected one input" in refused(folder, two)
    none = speaker()
    del none.graph.output[:]
    assert "expected one input" in refused(folder, none)
    further = speaker()
    further.graph.output.append(floats("mean", 1, 80))
    Bundle.open(add_speaker(folder, further))


def test_foreign_operators_are_refused_in_it_too(folder: Path) -> None:
    model = speaker()
    model.graph.node[0].domain = "com.example"
    assert "operators of ['com.example'], expected standard ones" in refused(folder, model)


def test_one_flipped_bit_is_refused(folder: Path) -> None:
    add_speaker(folder, speaker())
    path = folder / "speaker.onnx"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptFile, match=r"speaker\.onnx: sha256 .* does not match"):
        Bundle.open(folder)


def test_engines_that_nobody_knows_are_refused(folder: Path) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    raw["engines"]["singer"] = raw["engines"]["vocoder"]
    write_manifest(folder, raw)
    with pytest.raises(CorruptFile, match="unknown engine singer; export the bundle again"):
        Bundle.open(folder)
