"""A checkpoint that is not whole, or hostile: one clear line, exit code 1, nothing written."""

import json
import os
import shutil

import pytest
import torch
from tiny_checkpoint import make_checkpoint

from antiphon.apps import cli

LM, CODEC = "MOSS-Speech", "MOSS-Speech-Codec"
INDEX = f"{LM}/model.safetensors.index.json"
SHARD = f"{LM}/model-00001-of-00002.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to damage, in a place with spaces and letters beyond ASCII."""
    return shutil.copytree(whole, tmp_path / "ein Modell für 日本")


class Hostile:
    """Unpickling it would make a folder."""

    def __reduce__(self):
        return (os.mkdir, ("unpickled",))


def absent_shard(folder):
    index = json.loads((folder / INDEX).read_text())
    name = next(iter(index["weight_map"]))
    index["weight_map"][name] = "model-00009-of-00009.safetensors"
    (folder / INDEX).write_text(json.dumps(index))


def swapped(folder):
    (folder / LM).rename(folder / "other")
    (folder / CODEC).rename(folder / LM)
    (folder / "other").rename(folder / CODEC)


def changed(folder, name, value):
    path = folder / CODEC / "flow" / "hift.pt"
    torch.save(torch.load(path) | {name: value}, path)


def cut(name):
    return lambda folder: os.truncate(folder / name, (folder / name).stat().st_size - 100)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (shutil.rmtree, "no such folder; name the folder that holds MOSS-Speech and"),
        (
            lambda f: shutil.rmtree(f / CODEC),
            "MOSS-Speech-Codec: missing; download OpenMOSS-Team/MOSS-Speech-Codec and put it there",
        ),
        (lambda f: (f / SHARD).unlink(), f"{SHARD}: missing; is the checkpoint complete?"),
        (lambda f: (f / INDEX).unlink(), f"{INDEX}: missing, though its shards are here"),
        (absent_shard, "model-00009-of-00009.safetensors: missing; is the checkpoint complete?"),
        (cut(SHARD), f"{SHARD}: not a whole safetensors file"),
        (cut(f"{CODEC}/model.safetensors"), "model.safetensors: not a whole safetensors file"),
        (cut(f"{CODEC}/flow/hift.pt"), "hift.pt: not a whole file of tensors written by torch"),
        (cut(f"{LM}/config.json"), "config.json: not readable as JSON"),
        (cut("voices/anna.npz"), "anna.npz: not a voice"),
        (swapped, "are the two folders swapped?"),
        (lambda f: changed(f, "more", Hostile()), "posix.mkdir. Nothing of it was run; download"),
        (
            lambda f: changed(f, "conv_pre.bias", torch.zeros(16, dtype=torch.int64)),
            "conv_pre.bias is I64, expected F64, F32, F16 or BF16",
        ),
    ],
)
def test_a_bad_checkpoint_is_refused_in_one_line(damage, words, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder.parent)
    damage(folder)
    before = sorted(folder.parent.rglob("*"))
    assert cli.main(["export", str(folder), "out"]) == 1
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), sorted(folder.parent.rglob("*"))) == ("", 1, before)
    assert err.startswith("antiphon: ")
    assert words in err
