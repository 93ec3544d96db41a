"""A bundle is opened whole or not at all: each defect is named, before any engine loads."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import GraphProto, TensorProto, helper, save
from tiny import floats, model
from tiny_bundle import (
    CODES,
    LM,
    MEL,
    file_entry,
    manifest,
    stand_ins,
    write_bundle,
    write_manifest,
)

from antiphon.runtime.backend import Engine
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import BundleError, ConfigError, CorruptFile, VersionMismatch
from antiphon.runtime.manifest import ENGINES
from antiphon.runtime.onnx_file import read_facts


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose trunk keeps a weight in external data, and can run."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    folder.mkdir()
    save_trunk(folder)
    return write_bundle(folder)


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "tiny"))


def save_trunk(folder: Path, **entries: str) -> None:
    """`hidden = embeddings + weight`, the weight in trunk.data."""
    weight = np.arange(LM.hidden_size, dtype="f4")
    weight.tofile(folder / "trunk.data")
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=weight.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        {"location": "trunk.data", "offset": "0", "length": "256"} | entries
    ).items():
        tensor.external_data.add(key=key, value=value)
    graph = stand_ins()["trunk"].graph
    caches = [o.name for o in graph.output if o.name != "hidden"]
    nodes = [helper.make_node("Add", ["embeddings", "w"], ["hidden"])]
    nodes += [helper.make_node("Identity", [n.removesuffix("_out")], [n]) for n in caches]
    save(model(nodes, list(graph.input), list(graph.output), [tensor]), folder / "trunk.onnx")


def refused(folder: Path, *words: str, kind: type[Exception] = CorruptFile) -> str:
    """Open must fail, name the words, and load no engine. Returns the message."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Engine, "load", None)
        with pytest.raises(kind) as caught:
            Bundle.open(folder)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert len(message) < 600
    return message


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    change(raw)
    write_manifest(folder, raw)


def remake_manifest(folder: Path) -> None:
    """An attacker can hash as well."""
    write_manifest(folder, manifest(folder).to_dict())


def test_a_whole_bundle_opens(folder: Path) -> None:
    bundle = Bundle.open(folder)
    assert bundle.tokenizer_path == folder / "tokenizer.json"
    assert bundle.noise.shape == (MEL, 200)
    assert bundle.voices == ["anna"]
    assert bundle.voice().prompt_mel.shape == (MEL, 20)
    with pytest.raises(ConfigError, match="no voice 'eve' here; choose one of anna"):
        bundle.voice("eve")


def test_engines_load_with_their_external_data(folder: Path) -> None:
    trunk = Bundle.open(folder).engine("trunk", exact=True)
    feeds = {n: np.zeros([1 if isinstance(d, str) else d for d in s.shape])
             for n, s in trunk.inputs.items()}  # fmt: skip
    assert (trunk.run(feeds)["hidden"][0, 0] == np.arange(LM.hidden_size)).all()


def test_unknown_target(folder: Path) -> None:
    edit(folder, lambda m: m.update(target="abacus"))
    with pytest.raises(ConfigError, match="engines for target 'abacus', expected one of cpu"):
        Bundle.open(folder).engine("trunk")


@given(data=st.data())
@settings(max_examples=40)
def test_one_flipped_bit_anywhere_is_refused(pristine: Path, data: st.DataObject) -> None:
    names = sorted(e.file for e in manifest(pristine).files)
    path = pristine / data.draw(st.sampled_from(names))
    content = path.read_bytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    try:
        path.write_bytes(flipped)
        refused(pristine, path.name, "sha256", "does not match the manifest")
    finally:
        path.write_bytes(content)


@pytest.mark.parametrize("verify", [True, False])
def test_missing_and_truncated_files(folder: Path, verify: bool) -> None:
    for entry in manifest(folder).files:
        path = folder / entry.file
        content = path.read_bytes()
        path.write_bytes(content[:-1])
        with pytest.raises(CorruptFile, match=f"{entry.file}: {len(content) - 1} bytes, expected"):
            Bundle.open(folder, verify=verify)
        path.unlink()
        with pytest.raises(CorruptFile, match=f"{entry.file}: No such file.*again"):
            Bundle.open(folder, verify=verify)
        path.write_bytes(content)
    Bundle.open(folder, verify=verify)


def test_links_are_refused_even_to_the_right_bytes(folder: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside.json"
    shutil.move(folder / "tokenizer.json", outside)
    (folder / "tokenizer.json").symlink_to(outside)
    refused(folder, "tokenizer.json is a link")
    (folder / "tokenizer.json").unlink()
    shutil.move(outside, folder / "tokenizer.json")
    shutil.move(folder / "voices", tmp_path / "voices")
    (folder / "voices").symlink_to(tmp_path / "voices")
    refused(folder, "voices is a link")


def test_special_files_are_refused(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer.json").mkdir()
    refused(folder, "tokenizer.json", "expected a file")
    (folder / "tokenizer.json").rmdir()
    os.mkfifo(folder / "tokenizer.json")
    refused(folder, "tokenizer.json", "expected a file")


def test_paths_outside_are_refused(folder: Path) -> None:
    edit(folder, lambda m: m["tokenizer"].update(file="../tokenizer.json"))
    refused(folder, "'../tokenizer.json' leaves the bundle")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\xff\xfe\x00", "not JSON"),
        (b'{"a": NaN}', "NaN is not a number"),
        (b'{"a": 1, "a": 2}', "stated twice"),
        (b"[" * 200_000, "not JSON"),
        (b'{"format_version": ' + b"9" * 5000 + b"}", "not JSON"),
        (b" " * (1 << 20) + b"{}", "at most 1048576 bytes"),
    ],
)
def test_hostile_manifests(folder: Path, content: bytes, word: str) -> None:
    (folder / "manifest.json").write_bytes(content)
    refused(folder, "manifest.json", word)


def test_no_manifest(folder: Path, tmp_path: Path) -> None:
    (folder / "manifest.json").rename(tmp_path / "manifest.json")
    refused(folder, "no bundle here", "antiphon export", kind=BundleError)
    refused(tmp_path / "nowhere", "no bundle here", kind=BundleError)
    (folder / "manifest.json").symlink_to(tmp_path / "manifest.json")
    refused(folder, "expected a plain file")


def test_other_format_version(folder: Path) -> None:
    edit(folder, lambda m: m.update(format_version=2))
    refused(folder, "format version 2", kind=VersionMismatch)


def test_missing_engine_and_voice(folder: Path) -> None:
    edit(folder, lambda m: m["engines"].pop("vocoder"))
    refused(folder, "no engine vocoder")
    edit(folder, lambda m: m.update(engines=manifest(folder).to_dict()["engines"], voices={}))
    refused(folder, "no voice")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"location": "../trunk.data"}, ("weights in '../trunk.data'", "['trunk.data']")),
        ({"location": "/etc/passwd"}, ("weights in '/etc/passwd'",)),
        ({"location": "tokenizer.json"}, ("weights in 'tokenizer.json'",)),
        ({"location": "*/_ORT_MEM_ADDR_/*"}, ("weights in '*/_ORT",)),
        ({"location": ""}, ("weights in ''",)),
        ({"offset": "1"}, ("weights at 1 + 256 pass the end of trunk.data (256 bytes)",)),
        ({"length": "-1"}, ("weights at 0 + -1",)),
        ({"offset": "9" * 9999}, ("pass the end",)),
    ],
)
def test_external_data_stays_in_its_file(
    folder: Path, entries: dict[str, str], words: tuple[str, ...]
) -> None:
    save_trunk(folder, **entries)
    remake_manifest(folder)
    refused(folder, "trunk.onnx", *words)


def hidden_weight(location: str) -> TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[64])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def inner_graph() -> GraphProto:
    node = helper.make_node("Constant", [], ["c"], value=hidden_weight("/etc/passwd"))
    return helper.make_graph([node], "inner", [floats("inner", 7)], [floats("c", 64)])


def test_external_data_is_found_wherever_it_hides(folder: Path) -> None:
    indices = helper.make_tensor("i", TensorProto.INT64, [64], range(64))
    sparse = helper.make_sparse_tensor(hidden_weight("/etc/passwd"), indices, [99])
    nodes = [
        helper.make_node("Constant", [], ["c"], value=hidden_weight("/etc/passwd")),
        helper.make_node("If", ["b"], ["c"], then_branch=inner_graph(), else_branch=inner_graph()),
        helper.make_node("X", [], ["c"], tensors=[hidden_weight("/etc/passwd")]),
        helper.make_node("X", [], ["c"], graphs=[inner_graph()]),
        helper.make_node("Constant", [], ["c"], sparse_value=sparse),
    ]
    plain = stand_ins()["vocoder"].graph
    inputs = [i.name for i in plain.input]  # those of an inner graph are none
    for node in nodes:
        save(model([node], list(plain.input), list(plain.output)), folder / "vocoder.onnx")
        remake_manifest(folder)
        assert [i.name for i in read_facts(folder / "vocoder.onnx").inputs] == inputs
        refused(folder, "vocoder.onnx: weights in '/etc/passwd'")
    function = model([], list(plain.input), list(plain.output))
    opset = [helper.make_opsetid("", 24)]
    function.functions.append(helper.make_function("", "f", [], ["c"], nodes[:1], opset))
    save(function, folder / "vocoder.onnx")
    remake_manifest(folder)
    refused(folder, "vocoder.onnx: weights in '/etc/passwd'")


def test_location_stated_twice(folder: Path) -> None:
    graph = stand_ins()["vocoder"]
    tensor = hidden_weight("trunk.data")
    tensor.external_data.add(key="location", value="/etc/passwd")
    graph.graph.initializer.append(tensor)
    save(graph, folder / "vocoder.onnx")
    with pytest.raises(CorruptFile, match="location is stated twice"):
        remake_manifest(folder)


def test_foreign_operators_are_refused(folder: Path) -> None:
    plain = stand_ins()["vocoder"].graph
    node = helper.make_node("EPContext", ["mel"], ["pcm"], domain="com.microsoft")
    save(model([node], list(plain.input), list(plain.output)), folder / "vocoder.onnx")
    remake_manifest(folder)
    refused(folder, "vocoder.onnx: operators of ['com.microsoft'], expected standard ones")


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b"\xff" * 20, b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x3b\x00"],
)
def test_unreadable_graphs_are_refused(folder: Path, content: bytes) -> None:
    good = manifest(folder).to_dict()
    (folder / "vocoder.onnx").write_bytes(content)
    entry = good["engines"]["vocoder"]["file"]
    entry.update(sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content))
    write_manifest(folder, good)
    refused(folder, "vocoder.onnx")


WRONG_SIZES: dict[str, Callable[[dict[str, Any]], object]] = {
    "trunk.onnx: inputs: embeddings is [1, 'S', 64], expected [1, 'S', 32]": lambda m: m[
        "lm"
    ].update(hidden_size=32),
    "trunk.onnx: inputs: key_2 is absent": lambda m: m["lm"].update(shared_layers=3),
    "trunk.onnx: inputs: cos": lambda m: m["lm"].update(head_dim=32),
    "trunk.onnx: inputs: key_0": lambda m: m["lm"].update(kv_heads=4),
    "speech_branch.onnx: outputs: logits": lambda m: m["lm"].update(audio_vocab=40),
    "flow_encoder.onnx: inputs: embedding": lambda m: m["flow"].update(speaker_dim=7),
    "vocoder.onnx: inputs: noise": lambda m: m["vocoder"].update(harmonics=7),
    "encoder.onnx: inputs: log_mel": lambda m: m["encoder"].update(mel_bins=5),
    "trunk.onnx: inputs have cos": lambda m: m["engines"]["trunk"]["inputs"][1].update(
        dtype="float16"
    ),
    "trunk.onnx: outputs: 5, the manifest says 4": lambda m: m["engines"]["trunk"]["outputs"].pop(),
}


@pytest.mark.parametrize("message", WRONG_SIZES)
def test_one_wrong_size_is_refused(folder: Path, message: str) -> None:
    edit(folder, WRONG_SIZES[message])
    refused(folder, message, "export the bundle again")


@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_has_just_the_tensors_that_are_used(folder: Path, engine: str) -> None:
    """A bundle of another version is refused when it is opened, not in the first turn."""
    path, plain = folder / f"{engine}.onnx", stand_ins()[engine].graph
    inputs, outputs = list(plain.input), list(plain.output)
    for i, o in ((inputs[1:], outputs), (inputs, outputs[1:])):
        save(model([], i, o), path)
        remake_manifest(folder)
        refused(folder, f"{engine}.onnx: ", " is absent, expected [", "export the bundle again")
    for i, o in (([*inputs, floats("new", 1)], outputs), (inputs, [*outputs, floats("new", 1)])):
        save(model([], i, o), path)
        remake_manifest(folder)
        refused(folder, f"{engine}.onnx: ", "puts: new is unknown", "export the bundle again")


def save_again(folder: Path, name: str, array: np.ndarray) -> None:
    np.save(folder / name, array, allow_pickle=True)
    remake_manifest(folder)


def test_tables_of_other_shapes_and_types(folder: Path) -> None:
    for table in (np.zeros((96, 63), "f4"), np.zeros((95, 64), "f4"), np.zeros((96, 64), "f8")):
        save_again(folder, "embed_text.npy", table)
        refused(folder, "embed_text.npy", "expected float32 or float16[96, 64]")
    save_again(folder, "embed_text.npy", np.zeros((96, 64), "i1"))
    refused(folder, "embed_text.npy: int8[96, 64], expected float32")
    save_again(folder, "embed_text.npy", np.zeros((96, 64), "f2"))
    Bundle.open(folder)
    save_again(folder, "flow_noise.npy", np.zeros((MEL + 1, 9), "f4"))
    refused(folder, "flow_noise.npy", f"expected float32 [{MEL}, T]")


def npy(header: bytes) -> bytes:
    """An array file with this header."""
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header


def test_pickles_and_strange_headers_are_refused(folder: Path) -> None:
    save_again(folder, "embed_text.npy", np.array([object], object))
    refused(folder, "embed_text.npy: not an array")
    save_again(folder, "embed_text.npy", np.zeros((96, 64), "f4"))
    path = folder / "embed_text.npy"
    header = path.read_bytes()
    strange = (b"{**1}", b"(" * 5000, b"{[]: 1, 'fortran_order'", b'"' * 3, b"{'shape': 1}")
    for damaged in (
        *map(npy, strange),
        b"",
        b"\x93NUMPY\x03\x00\xff\xff\xff\x7f",
        header.replace(b"(96,", b"(9**9,"),
    ):
        path.write_bytes(damaged)
        remake_manifest(folder)
        refused(folder, "embed_text.npy: not an array")
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3))
    remake_manifest(folder)
    refused(folder, "embed_text.npy: not an array")


VOICE = {
    "prompt_codes": np.arange(5),
    "prompt_mel": np.zeros((MEL, 20), "f4"),
    "embedding": np.ones(6, "f4"),
}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt_codes": np.arange(5) + CODES}, f"codes outside 0 … {CODES - 1}"),
        ({"prompt_codes": np.arange(5) - 1}, "codes outside"),
        ({"prompt_codes": np.arange(6)}, "prompt_mel is float32[4, 20], expected float32[4, 24]"),
        ({"prompt_codes": np.zeros((5, 1), int)}, "prompt_codes is int64[5, 1]"),
        ({"prompt_codes": np.arange(5, dtype="i4")}, "prompt_codes is int32"),
        ({"embedding": np.full(6, np.nan, "f4")}, "not finite"),
        ({"embedding": np.ones(7, "f4")}, "embedding is float32[7]"),
        ({"surprise": np.ones(1)}, "not a voice"),
        ({"embedding": np.array([object], object)}, "not a voice"),
    ],
)
def test_voices_are_checked(folder: Path, change: dict[str, np.ndarray], words: str) -> None:
    np.savez(folder / "voices" / "anna.npz", **(VOICE | change))
    remake_manifest(folder)
    refused(folder, "anna.npz", words)


def test_a_voice_that_unpacks_without_end(folder: Path) -> None:
    path = folder / "voices" / "anna.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("prompt_codes.npy", bytes(40_000_000))
    remake_manifest(folder)
    assert path.stat().st_size < 100_000
    refused(folder, "anna.npz: not a voice (40000000 bytes unpacked")
    path.write_bytes(b"PK\x03\x04 no archive")
    remake_manifest(folder)
    refused(folder, "anna.npz: not a voice")


def test_int8_tables_with_scales(folder: Path) -> None:
    np.save(folder / "embed_audio.npy", np.ones((48, 64), "i1"))
    np.save(folder / "embed_audio_scale.npy", np.full(48, 0.5, "f4"))
    remake_manifest(folder)
    scales = file_entry(folder, "embed_audio_scale.npy")
    entry = {n: getattr(scales, n) for n in ("file", "sha256", "size_bytes")}
    edit(folder, lambda m: m["audio_embeddings"].update(scales=entry))
    bundle = Bundle.open(folder)
    assert (bundle.embeddings.rows(np.array([[95, 3]])) == 0.5).all()
