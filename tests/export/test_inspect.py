"""A checkpoint is described whole or in parts, and the description reads no tensor."""

import json
import shutil
from pathlib import Path

import lookalike
import pytest
import torch
from safetensors.torch import save_file

from antiphon.export import tensor_files
from antiphon.export.inspect import inspect
from antiphon.runtime.errors import CorruptFile
from benchmarks.layout import REAL, split

LM, CODEC, FLOW = "MOSS-Speech", "MOSS-Speech-Codec", "MOSS-Speech-Codec/flow"
COUNTS = {key: sum(t.numel() for t in lookalike.tensors(key).values()) for key in lookalike.KEYS}


@pytest.fixture
def folder(published, tmp_path):
    """The small look-alike, made of links: replace a file to damage it."""
    copy = tmp_path / "a folder"
    shutil.copytree(published, copy, copy_function=lambda a, b: Path(b).symlink_to(a))
    return copy


def files(report):
    return {file.file: file for file in report.files}


def test_a_whole_checkpoint(folder, monkeypatch):
    def no_values(*_):
        raise AssertionError("a tensor was read")

    monkeypatch.setattr(tensor_files.Stored, "read", no_values)
    report = inspect(folder)
    assert report.complete
    assert (report.missing, report.problems, report.voices) == ([], [], [])
    assert report.parameters == COUNTS
    found = files(report)
    assert list(found) == [
        f"{LM}/config.json",
        f"{LM}/tokenizer.json",
        f"{LM}/model.safetensors.index.json",
        *(f"{LM}/{name}" for name in lookalike.shard_names()),
        f"{CODEC}/config.json",
        f"{CODEC}/preprocessor_config.json",
        f"{CODEC}/model.safetensors",
        f"{FLOW}/flow-chunk-5.pt",
        f"{FLOW}/hift.pt",
        f"{FLOW}/campplus.onnx",
    ]
    assert sum(found[f"{LM}/{name}"].tensors for name in lookalike.shard_names()) == 446
    codec = found[f"{CODEC}/model.safetensors"]
    assert codec.dtypes["F32"] > COUNTS["tokenizer"]  # it holds more than is needed
    assert codec.dtypes["I64"] == 16384
    assert codec.parameters == sum(codec.dtypes.values())
    flow = found[f"{FLOW}/flow-chunk-5.pt"]
    assert (flow.tensors, flow.dtypes) == (1121, {"F32": COUNTS["flow"]})
    assert all(file.size_bytes == (folder / name).stat().st_size for name, file in found.items())


@pytest.mark.parametrize(
    "name",
    [
        f"{LM}/config.json",
        f"{LM}/tokenizer.json",
        f"{LM}/model-00002-of-00003.safetensors",
        f"{CODEC}/config.json",
        f"{CODEC}/preprocessor_config.json",
        f"{CODEC}/model.safetensors",
        f"{FLOW}/flow-chunk-5.pt",
        f"{FLOW}/hift.pt",
    ],
)
def test_a_missing_file_is_said_and_the_rest_described(folder, name):
    (folder / name).unlink()
    report = inspect(folder)
    assert report.missing == [name]
    assert report.problems == []
    assert not report.complete
    assert files(report)[f"{LM}/model-00001-of-00003.safetensors"].tensors > 0
    assert bool(report.fits) == ("config.json" not in name.split("/"))


def test_with_only_the_settings_downloaded_the_fit_is_known(tmp_path):
    lookalike.write_json(tmp_path / LM / "config.json", REAL.lm_config())
    lookalike.write_json(tmp_path / CODEC / "config.json", REAL.codec_config())
    report = inspect(tmp_path)
    assert report.parameters == {"lm": 9_095_694_336, "tokenizer": 343_119_360}
    assert [fit.rows for fit in report.fits[12]["int8"]] == [2048, 4096]
    assert f"{LM}/model.safetensors.index.json" in report.missing


def test_one_folder_is_enough_to_be_described(folder):
    shutil.rmtree(folder / CODEC)
    report = inspect(folder)
    assert f"{CODEC}/config.json" in report.missing
    assert report.parameters == {"lm": COUNTS["lm"]}


def test_an_optional_file_is_not_missed(folder):
    (folder / FLOW / "campplus.onnx").unlink()
    report = inspect(folder)
    assert report.complete
    assert files(report)[f"{FLOW}/campplus.onnx"].size_bytes is None


def test_no_folder_at_all_is_an_error(tmp_path):
    with pytest.raises(CorruptFile, match="no such folder"):
        inspect(tmp_path / "absent")
    with pytest.raises(CorruptFile, match="no MOSS-Speech and no MOSS-Speech-Codec"):
        inspect(tmp_path)


def test_an_unsharded_language_model(folder):
    for path in (folder / LM).glob("model*"):
        path.unlink()
    save_file(lookalike.tensors("lm"), folder / LM / "model.safetensors")
    report = inspect(folder)
    assert report.complete
    assert files(report)[f"{LM}/model.safetensors"].tensors == 446


def replaced(path, content):
    path.unlink()
    path.write_bytes(content)


def cut(path):
    replaced(path, path.read_bytes()[:-1])


def broken_tokenizer(path):
    raw = json.loads(path.read_text())
    del raw["model"]["vocab"]["!"]
    replaced(path, json.dumps(raw).encode())


def without_one(path):
    state = lookalike.tensors("hift")
    del state["conv_post.bias"]
    path.unlink()
    torch.save(state, path)


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        (f"{LM}/model-00003-of-00003.safetensors", cut, "not a whole safetensors file"),
        (f"{LM}/config.json", cut, "not readable as JSON"),
        (f"{LM}/tokenizer.json", broken_tokenizer, "tokenizer.json: <|endoftext|> becomes"),
        (f"{LM}/tokenizer.json", lambda p: replaced(p, b'{"added_tokens": []}'), "has id None"),
        (f"{LM}/model.safetensors.index.json", lambda p: replaced(p, b"{}"), "no weight_map"),
        (f"{FLOW}/flow-chunk-5.pt", cut, "not a whole file of tensors"),
        (f"{FLOW}/hift.pt", without_one, "conv_post.bias missing"),
        (
            f"{FLOW}/campplus.onnx",
            lambda p: replaced(p, b""),
            "campplus.onnx: nothing, expected one",
        ),
    ],
)
def test_a_defect_is_a_problem_of_one_line(folder, name, damage, words):
    damage(folder / name)
    report = inspect(folder)
    assert not report.complete
    assert [words in problem for problem in report.problems] == [True]
    assert name.rpartition("/")[2] in report.problems[0]


def test_a_defect_that_only_opening_everything_shows(folder):
    (folder / "voices").mkdir()
    (folder / "voices" / "ann.npz").write_bytes(b"no voice")
    (problem,) = inspect(folder).problems
    assert "ann" in problem


@pytest.fixture(scope="module")
def real_size(published, tmp_path_factory):
    """The published sizes: headers and holes, so that 20 GB take no room."""
    folder = tmp_path_factory.mktemp("real size") / "checkpoint"
    shutil.copytree(published, folder)
    for path in (folder / LM).glob("model*"):
        path.unlink()
    shards = split(REAL.census("lm"), 2, 5 * 10**9)
    names = [f"model-{n}-of-{len(shards)}.safetensors" for n in range(1, len(shards) + 1)]
    for name, shapes in zip(names, shards, strict=True):
        lookalike.write_hollow(folder / LM / name, shapes, "BF16")
    where = {tensor: n for n, shapes in zip(names, shards, strict=True) for tensor in shapes}
    lookalike.write_json(folder / LM / "model.safetensors.index.json", {"weight_map": where})
    lookalike.write_json(folder / LM / "config.json", REAL.lm_config())
    lookalike.write_hollow(folder / CODEC / "model.safetensors", REAL.census("tokenizer"), "F32")
    lookalike.write_json(folder / CODEC / "config.json", REAL.codec_config())
    return folder


def test_the_published_sizes(real_size):
    report = inspect(real_size)
    assert report.complete, report.problems
    assert report.parameters["lm"] == 9_095_694_336
    assert report.parameters["tokenizer"] == 343_119_360
    shards = [file for file in report.files if "-of-4." in file.file]
    assert sum(file.parameters for file in shards) == 9_095_694_336
    assert max(file.size_bytes for file in shards) > 4 * 2**30
    assert [fit.rows for fit in report.fits[12]["int4"]] == [10_240]
    assert report.fits[12]["bf16"] == ()
