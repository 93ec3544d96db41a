"""The manifest says everything once, and nothing it does not know."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_bundle import manifest, write_bundle

from antiphon.runtime.errors import BundleError, ConfigError, CorruptFile, VersionMismatch
from antiphon.runtime.manifest import FileEntry, Manifest, SamplingConfig, SpecialTokens

Raw = dict[str, Any]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return manifest(write_bundle(tmp_path_factory.mktemp("bundle") / "tiny"))


@pytest.fixture
def raw(whole: Manifest) -> Raw:
    return json.loads(json.dumps(whole.to_dict()))


def test_survives_json(whole: Manifest, raw: Raw) -> None:
    assert Manifest.from_dict(raw) == whole
    assert raw["engines"]["trunk"]["inputs"][0]["shape"] == [1, "S", 64]


def test_lists_every_file_of_the_bundle(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "tiny")
    on_disk = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {e.file for e in manifest(folder).files} == on_disk - {"manifest.json"}


CHANGES: dict[str, Callable[[Raw], object]] = {
    "unknown keys ['flavour']": lambda m: m.update(flavour=1),
    "manifest.json.lm: unknown keys": lambda m: m["lm"].update(depth=3),
    "engines.trunk.file: unknown keys": lambda m: m["engines"]["trunk"]["file"].update(url="x"),
    "manifest.json: missing keys ['noise']": lambda m: m.pop("noise"),
    "lm: missing keys ['rope_theta']": lambda m: m["lm"].pop("rope_theta"),
    "lm.hidden_size is '64', expected int": lambda m: m["lm"].update(hidden_size="64"),
    "lm.hidden_size is True, expected int": lambda m: m["lm"].update(hidden_size=True),
    "lm.hidden_size is 64.0, expected int": lambda m: m["lm"].update(hidden_size=64.0),
    "hidden_size is 0, expected 1 to": lambda m: m["lm"].update(hidden_size=0),
    "head_dim is -8, expected 1 to": lambda m: m["lm"].update(head_dim=-8),
    "rope_theta is nan": lambda m: m["lm"].update(rope_theta=float("nan")),
    "log_mel_max is inf": lambda m: m.update(log_mel_max=float("inf")),
    "voices is [], expected dict": lambda m: m.update(voices=[]),
    "trunk.inputs is None, expected list": lambda m: m["engines"]["trunk"].update(inputs=None),
    "inputs[0].shape[0] is None": lambda m: m["engines"]["trunk"]["inputs"][0].update(shape=[None]),
    "shared_layers is 1025, expected 1 to 1024": lambda m: m["lm"].update(shared_layers=1025),
    "steps is 101, expected 1 to 100": lambda m: m["flow"].update(steps=101),
    "chunk_tokens is 10000": lambda m: m["flow"].update(chunk_tokens=10_000),
    "lookahead_tokens is 101": lambda m: m["flow"].update(lookahead_tokens=101),
    "at 8000 Hz, expected 1280 at 16000": lambda m: m["encoder"].update(sample_rate_hz=8000),
    "of 640 samples per code": lambda m: m["encoder"].update(samples_per_code=640),
    "makes 1600 samples of a code, expected 1920": lambda m: m["vocoder"].update(
        samples_per_frame=400
    ),
    "too large": lambda m: m["lm"].update(rope_theta=10**400),
    "trunk.ort, expected a file NAME.onnx": lambda m: m["engines"]["trunk"]["file"].update(
        file="trunk.ort"
    ),
    "do not fit in 96 text": lambda m: m["tokens"].update(im_end=96),
    "distinct and >= 0": lambda m: m["tokens"].update(im_end=90),
    "end of speech is 31, expected an id behind the 32": lambda m: m["tokens"].update(eosp=31),
    "segments of 1281 samples": lambda m: m["encoder"].update(segment_samples=1281),
    "segment_samples is 481280, expected 1 to 480000": lambda m: m["encoder"].update(
        segment_samples=481_280
    ),
    "the flow makes 5 mel bins": lambda m: m["flow"].update(mel_bins=5),
    "sampling needs 1e-06 <= temperature": lambda m: m["sampling"].update(temperature=0),
}


@pytest.mark.parametrize("message", CHANGES)
def test_a_wrong_manifest_is_refused(raw: Raw, message: str) -> None:
    CHANGES[message](raw)
    with pytest.raises(CorruptFile) as caught:
        Manifest.from_dict(raw)
    assert message in str(caught.value)
    assert "export the bundle again" in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("version", [0, 2, "1", None, 1.5])
def test_another_format_version_is_its_own_error(raw: Raw, version: object) -> None:
    raw["format_version"] = version
    raw["whatever"] = "the other version knows"
    with pytest.raises(VersionMismatch, match="this program reads 1"):
        Manifest.from_dict(raw)


BAD_NAMES = ["../x", "/etc/passwd", "a/b/c", "a//b", "", ".", "..", ".hidden", "a/..", "a\\b"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "C:x", "a\0b", "a\n", "x" * 101, "é", "a/", "-x"])
def test_only_plain_file_names(name: str) -> None:
    with pytest.raises(BundleError, match="is no plain name"):
        FileEntry(file=name, sha256="0" * 64, size_bytes=1)


def test_hash_and_size_must_be_possible() -> None:
    for sha256, size in (("0" * 63, 1), ("G" * 64, 1), ("0" * 64, -1)):
        with pytest.raises(CorruptFile, match="expected 64 hexadecimal digits"):
            FileEntry(file="a", sha256=sha256, size_bytes=size)


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1.0},
        {"top_p": 0.0},
        {"top_p": 1.5},
        {"top_k": 0},
        {"repetition_penalty": 0.0},
        {"max_new_tokens": 0},
        {"min_new_tokens": -1},
    ],
)
def test_sampling_refuses_the_impossible(wrong: Raw) -> None:
    with pytest.raises(ConfigError, match=f"got .*{next(iter(wrong))}"):
        SamplingConfig(**wrong)


def test_sampling_from_a_users_file() -> None:
    assert SamplingConfig.from_dict({"top_k": 5, "temperature": 1}).temperature == 1.0
    with pytest.raises(CorruptFile, match=r"unknown keys \['beams'\]"):
        SamplingConfig.from_dict({"beams": 2})


def test_stops_are_text_ids() -> None:
    tokens = SpecialTokens(
        endoftext=1, im_start=2, im_end=3, sosp=4, modality_pad=5, eosp=1, audio_pad=1
    )
    assert tokens.stops == (1, 3)
