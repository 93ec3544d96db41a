"""A look-alike opens as a checkpoint, is the same every time, and is whole or not there."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from antiphon.export.checkpoint import Checkpoint
from antiphon.runtime.errors import CapacityError, ConfigError
from benchmarks import lookalike
from benchmarks.layout import REAL, SMALL, Sizes, layer_by_layer, split
from benchmarks.lookalike import Numbers, make

LM, CODEC, FLOW = "MOSS-Speech", "MOSS-Speech-Codec", "MOSS-Speech-Codec/flow"
SIZES = Sizes(
    {
        "lm": {"H": 8, "I": 16, "NQ": 16, "NKV": 8, "HD": 8},
        **{k: SMALL[k] for k in ("flow", "hift")},
    }
    | {"tokenizer": {"d": 64, "f": 64}},
    shared_layers=2,
    modality_layers=1,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("made") / "look alike"
    make(out, SIZES, voice=True)
    return out


def test_it_opens(made):
    source = Checkpoint.open(made)
    assert source.lm_config.num_hidden_layers == 3
    assert len(source.names("lm")) == 4 * 11 + 6
    assert source.special_ids.modality_pad == 151667
    assert source.speaker == made / FLOW / "campplus.onnx"
    assert list(source.voices) == ["noise"]
    assert len(list((made / LM).glob("*.safetensors"))) > 1
    assert {path.name for path in made.iterdir()} == {LM, CODEC, "voices"}


@pytest.mark.parametrize(
    ("key", "name", "mean", "spread"),
    [
        ("lm", "model.embed_tokens.weight", 0, 8**-0.5),
        ("lm", "model.shared_block.layers.0.mlp.down_proj.weight", 0, 16**-0.5),
        ("lm", "model.text_norm.weight", 1, 0.05),
        ("tokenizer", "encoder.codebook.weight", 0, 64**-0.5),
        ("flow", "encoder.encoders.0.self_attn.linear_q.bias", 0, 0.02),
        ("hift", "ups.0.parametrizations.weight.original0", 1, 0.05),
        ("hift", "resblocks.0.activations1.0.alpha", 1, 0.05),
    ],
)
def test_values_have_a_sane_scale(made, key, name, mean, spread):
    values = Checkpoint.open(made).read(key, name)
    assert values.mean() == pytest.approx(mean, abs=4 * spread / values.size**0.5)
    assert values.std() == pytest.approx(spread, rel=2 / values.size**0.5 + 0.05)


def test_rows_and_tensors_differ(made):
    source = Checkpoint.open(made)
    rows = source.read("lm", "model.audio_embed.weight")
    assert len(np.unique(rows, axis=0)) == len(rows)
    layer = "model.shared_block.layers.{}.self_attn.q_proj.weight"
    assert not (source.read("lm", layer.format(0)) == source.read("lm", layer.format(1))).all()


@pytest.mark.parametrize("dtype", ["F32", "BF16"])
def test_a_tensor_longer_than_the_pool_goes_on(dtype):
    shape = (lookalike.POOL_VALUES // 2, 5)
    raw = np.concatenate([*Numbers(3).blocks("some", shape, dtype)])
    values = Numbers(3).array("some", shape)
    if dtype == "BF16":
        rounded = torch.from_numpy(values).bfloat16().view(torch.int16).numpy()
        np.testing.assert_array_equal(raw.view(np.int16), rounded.ravel())
    else:
        np.testing.assert_array_equal(raw.view(np.float32), values.ravel())


def test_the_same_seed_gives_the_same_bytes(tmp_path, made):
    make(tmp_path / "again", SIZES, voice=True)
    for path in made.rglob("*.safetensors"):
        assert path.read_bytes() == (tmp_path / "again" / path.relative_to(made)).read_bytes()
    numbers = [Numbers(seed).array("w", (5, 5)) for seed in (0, 0, 1)]
    assert (numbers[0] == numbers[1]).all()
    assert (numbers[0] != numbers[2]).any()


def test_real_sizes_are_cut_as_published():
    shards = split(layer_by_layer(REAL.census("lm")), 2, lookalike.SHARD_BYTES)
    assert {name: shape for shard in shards for name, shape in shard.items()} == REAL.census("lm")
    assert list(shards[0])[:3] == [
        "model.embed_tokens.weight",
        "model.audio_embed.weight",
        "model.shared_block.layers.0.input_layernorm.weight",
    ]
    assert list(shards[3])[-2:] == ["text_lm_head.weight", "audio_lm_head.weight"]
    gib = [sum(map(math.prod, shard.values())) / 2**29 for shard in shards]
    assert gib == pytest.approx([4.6, 4.7, 4.7, 3.1], abs=0.3)  # contract H
    found = lookalike.files(REAL, Numbers(), voice=False)
    assert f"{LM}/model-00004-of-00004.safetensors" in found
    assert sum(size for size, _ in found.values()) == pytest.approx(20.2e9, rel=0.01)


def test_an_interrupted_run_goes_on_with_what_is_whole(tmp_path, monkeypatch):
    real, out = lookalike.write_torch, tmp_path / "out"

    def interrupted(path, *args, **others):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(lookalike, "write_torch", interrupted)
    with pytest.raises(KeyboardInterrupt):
        make(out, SIZES)
    assert not out.exists()
    shard = next((tmp_path / ".out.partial" / LM).glob("*.safetensors"))
    first = shard.stat().st_mtime_ns, shard.stat().st_ino
    monkeypatch.setattr(lookalike, "write_torch", real)
    make(out, SIZES)
    shard = out / LM / shard.name
    assert (shard.stat().st_mtime_ns, shard.stat().st_ino) == first
    assert not list(out.rglob("unfinished-*"))
    Checkpoint.open(out)


def test_what_another_run_left_is_not_taken_over(tmp_path, monkeypatch):
    left = tmp_path / ".out.partial" / LM
    left.mkdir(parents=True)
    (left / "config.json").write_text("{}")
    make(tmp_path / "out", replace(SIZES, old_weight_norm=True))
    assert Checkpoint.open(tmp_path / "out").fused("conv_pre.weight").shape == (64, 80, 7)
    assert json.loads((tmp_path / "out" / LM / "config.json").read_text())["hidden_size"] == 8


def test_a_full_disk_or_a_taken_name_is_said_first(tmp_path, monkeypatch):
    (tmp_path / "taken").mkdir()
    with pytest.raises(ConfigError, match="taken: exists already"):
        make(tmp_path / "taken", SIZES)
    usage = lookalike.shutil.disk_usage(tmp_path)._replace(free=10**9)
    monkeypatch.setattr(lookalike.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CapacityError, match=r"takes 20\.\d GB more, 1\.0 GB are free"):
        make(tmp_path / "out", REAL)
    assert not list((tmp_path / ".out.partial").rglob("*.safetensors"))


def test_the_command(tmp_path):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks.lookalike", str(tmp_path)]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "exists already" in run.stderr
