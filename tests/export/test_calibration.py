"""Calibration samples what really enters the matrices, goes on where it stopped, knows its own."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_checkpoint import make_checkpoint

from antiphon.export import statistics
from antiphon.export.calibration import DIALOGUES, calibrate
from antiphon.export.checkpoint import Checkpoint
from antiphon.export.statistics import INDEX, READERS, Statistics, layer_names, to_half
from antiphon.runtime.errors import BundleError, ConfigError, CorruptFile

TEXTS = ("How are you?", "What is it?", "Why?")
RNG = np.random.default_rng(4)
SOUNDS = [0.1 * RNG.standard_normal(n).astype(np.float32) for n in (9000, 16000)]
ASKED = {"recordings": SOUNDS, "texts": TEXTS, "dialogues": 2}


class Told:
    """Keeps what it is told, and may stop the work before a step."""

    def __init__(self, stop_before=""):
        self.steps, self.notes, self.shares, self.stop_before = [], [], [], stop_before

    def step(self, what, number, count):
        if what == self.stop_before:
            raise KeyboardInterrupt
        self.steps.append(what)

    def advance(self, done, total):
        self.shares.append(done / total)

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def checkpoint(random_bundle):
    return random_bundle.path.parent / "checkpoint"


@pytest.fixture(scope="module")
def made(random_bundle, checkpoint, tmp_path_factory):
    """Statistics of every row."""
    folder = tmp_path_factory.mktemp("statistics") / "all rows"
    return calibrate(checkpoint, folder, random_bundle.path, rows=10_000, **ASKED)


def dialogues(found):
    with np.load(found.folder / DIALOGUES) as stored:
        return [stored[name] for name in sorted(stored)]


def contents(folder):
    """Every array of the statistics, by file and name."""
    return {
        (path.name, name): array
        for path in folder.glob("*.npz")
        for name, array in np.load(path).items()
    }


def assert_same(folder, other):
    one, two = contents(folder), contents(other)
    assert one.keys() == two.keys()
    for key, array in one.items():
        np.testing.assert_array_equal(array, two[key], err_msg=str(key))


def test_samples_are_the_inputs_of_the_reference(made, checkpoint):
    lm, seen = Checkpoint.open(checkpoint).reference().lm, {}
    for name, module in lm.named_modules():
        if isinstance(module, torch.nn.Linear):
            seen[name] = []
            module.register_forward_pre_hook(lambda _, args, to=seen[name]: to.append(args[0][0]))
    with torch.no_grad():
        for grid in dialogues(made):
            lm(torch.from_numpy(grid)[None])
    assert len(seen) == 3 * 7 + 2
    for name, pieces in seen.items():
        exact, found = torch.cat(pieces).numpy(), made.inputs(f"{name}.weight")
        assert found.rows.dtype == np.float16
        np.testing.assert_allclose(found.rows, exact, rtol=2e-3, atol=1e-4, err_msg=name)
        np.testing.assert_allclose(found.peak, np.abs(exact).max(axis=0), rtol=1e-5, atol=1e-6)


def test_peaks_are_those_of_the_keys_and_values_of_the_reference(made, checkpoint):
    lm, seen = Checkpoint.open(checkpoint).reference().lm, {}
    with torch.no_grad():
        for grid in dialogues(made):
            hidden, kept = lm.model.shared_block(lm.embed(torch.from_numpy(grid)[None]))
            groups = {"shared": kept}
            groups |= {
                b: lm.model.get_submodule(f"{b}_block")(hidden)[1] for b in ("text", "audio")
            }
            for block, group in groups.items():
                for i, (keys, values) in enumerate(group):
                    found = seen.setdefault(f"model.{block}_block.layers.{i}", [])
                    found.append((keys.numpy()[0], values.numpy()[0]))
    assert seen.keys() == {name for name in made.index.layers if "layers" in name}
    for layer, rows in seen.items():
        keys, values = (np.concatenate(side, axis=1) for side in zip(*rows, strict=True))
        half, found = keys.shape[2] // 2, made.cache_peaks(layer, keys.shape[::2])
        length = np.hypot(keys[..., :half], keys[..., half:]).max(axis=1)
        np.testing.assert_allclose(found.key, np.tile(length, 2), rtol=1e-4)
        np.testing.assert_allclose(found.value, np.abs(values).max(axis=1), rtol=1e-4)


def test_matrices_with_one_input_share_its_sample(made):
    names = {layer: made.folder / f"{layer}.npz" for layer in layer_names_of(made)}
    stored = np.load(names["model.shared_block.layers.0"])
    peaks = [f"{name}_peak" for name in (*READERS, "key", "value")]
    assert sorted(stored) == sorted([*READERS, *peaks])
    assert sorted(np.load(names["audio_lm_head"])) == ["head", "head_peak"]


def layer_names_of(found):
    return found.index.layers


def test_a_sample_is_the_same_rows_in_every_layer(made, random_bundle, checkpoint, tmp_path):
    few = calibrate(checkpoint, tmp_path / "few", random_bundle.path, rows=17, **ASKED)
    name = "model.shared_block.layers.0.self_attn.o_proj.weight"  # equal ids differ there
    every, some = made.inputs(name).rows, few.inputs(name).rows
    picked = [int(np.flatnonzero((every == row).all(axis=1))[0]) for row in some]
    assert len(some) == 17
    assert picked == sorted(picked)
    for tensor in ("text_lm_head.weight", name.replace("shared", "audio")):
        np.testing.assert_allclose(
            few.inputs(tensor).rows, made.inputs(tensor).rows[picked], rtol=2e-3
        )
        np.testing.assert_array_equal(few.inputs(tensor).peak, made.inputs(tensor).peak)


@pytest.mark.parametrize("stop", ["model.text_block.layers.0", "audio_lm_head"])
def test_what_is_stopped_goes_on(stop, made, random_bundle, checkpoint, tmp_path):
    folder, told = tmp_path / "statistics", Told()
    with pytest.raises(KeyboardInterrupt):
        calibrate(checkpoint, folder, random_bundle.path, progress=Told(stop), rows=10_000, **ASKED)
    with pytest.raises(ConfigError, match=f"not finished, {stop} is missing; .*: it goes on"):
        Statistics.open(folder, Checkpoint.open(checkpoint))
    calibrate(checkpoint, folder, random_bundle.path, progress=told, rows=10_000, **ASKED)
    names = layer_names(Checkpoint.open(checkpoint))
    assert told.steps == names[names.index(stop) :]
    assert told.shares[-1] == 1
    assert_same(folder, made.folder)
    assert sorted(p.name for p in folder.iterdir()) == sorted(
        [DIALOGUES, INDEX, *(f"{name}.npz" for name in names)]
    )


def test_what_is_finished_is_not_done_again(made, random_bundle, checkpoint):
    told, index = Told(), made.folder / INDEX
    before = index.stat().st_mtime_ns
    calibrate(checkpoint, made.folder, random_bundle.path, progress=told, rows=10_000, **ASKED)
    assert told.steps == []
    assert index.stat().st_mtime_ns == before


def test_other_questions_need_another_folder(made, random_bundle, checkpoint):
    before = made.folder / INDEX
    raw = before.read_bytes()
    with pytest.raises(BundleError, match="or of other questions; choose another folder"):
        calibrate(checkpoint, made.folder, random_bundle.path, texts=TEXTS, dialogues=1)
    assert before.read_bytes() == raw


@pytest.mark.parametrize("name", ["novel.txt", INDEX])
def test_a_folder_with_something_else_is_left_alone(name, random_bundle, checkpoint, tmp_path):
    (tmp_path / name).write_text('{"night": "dark"}')
    with pytest.raises(BundleError, match="holds something else; choose another folder"):
        calibrate(checkpoint, tmp_path, random_bundle.path, texts=TEXTS)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_bundle_of_another_checkpoint_is_refused(random_bundle, tmp_path):
    other = make_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match=r"was not made from .*tiny; name one that was"):
        calibrate(other, tmp_path / "new", random_bundle.path, texts=TEXTS)
    assert not (tmp_path / "new").exists()


def test_statistics_of_another_checkpoint_are_refused(made, checkpoint, tmp_path):
    """The same architecture, other weights."""
    copy = tmp_path / "checkpoint"
    shutil.copytree(checkpoint, copy)
    [path] = (copy / "MOSS-Speech").glob("*.safetensors")
    raw = bytearray(path.read_bytes())
    at = 8 + int.from_bytes(raw[:8], "little")
    raw[at : at + 4] = np.float32(0.123).tobytes()  # the first value of the first tensor
    path.write_bytes(raw)
    with pytest.raises(
        ConfigError, match="statistics of another checkpoint; make those of this one"
    ):
        Statistics.open(made.folder, Checkpoint.open(copy))


@pytest.mark.parametrize("text", ["", "[]", '{"checkpoint": 3}', '{"rows": 1}'])
def test_an_index_that_says_nothing_is_no_statistics(text, made, checkpoint, tmp_path):
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(ConfigError, match=f"no {INDEX} of a calibration there"):
        Statistics.open(tmp_path, Checkpoint.open(checkpoint))


def raw_npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_a_damaged_layer_is_named(made, checkpoint, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(made.folder, folder)
    found = Statistics.open(folder, Checkpoint.open(checkpoint))
    path = folder / "model.text_block.layers.0.npz"
    raw = path.read_bytes()
    for damage in (
        lambda: path.write_bytes(raw[:1000]),
        lambda: path.write_bytes(b""),
        lambda: path.write_bytes(raw_npy(np.zeros(3))),
        lambda: np.savez(path, gate_up=["no"], gate_up_peak=["numbers"]),
        path.unlink,
    ):
        damage()
        with pytest.raises(CorruptFile, match=r"text_block\.layers\.0\.npz: .*calibrate again"):
            found.inputs("model.text_block.layers.0.mlp.up_proj.weight")


@pytest.mark.parametrize(
    "damage", [lambda peak: peak[:, 1:], lambda peak: peak * np.float32("nan")]
)
def test_damaged_peaks_are_refused(damage, made, checkpoint, tmp_path):
    folder, layer = tmp_path / "copy", "model.text_block.layers.0"
    shutil.copytree(made.folder, folder)
    with np.load(folder / f"{layer}.npz") as stored:
        arrays = dict(stored)
    shape = arrays["value_peak"].shape
    arrays["value_peak"] = damage(arrays["value_peak"])
    np.savez(folder / f"{layer}.npz", allow_pickle=False, **arrays)
    found = Statistics.open(folder, Checkpoint.open(checkpoint))
    with pytest.raises(CorruptFile, match=r"layers\.0\.npz: peaks .*calibrate again, into anoth"):
        found.cache_peaks(layer, shape)


def test_a_key_that_is_not_finite_ends_the_calibration():
    rows = np.ones((1, 2, 3, 8), np.float32)
    with pytest.raises(ConfigError, match="key or value is not finite; the checkpoint is damaged"):
        statistics.CachePeaks.none(2, 8).joined(rows, rows * np.float32("inf"))


@given(exponent=st.integers(-8, 90), count=st.integers(0, 5))
def test_values_beyond_float16_keep_their_ratios(exponent, count):
    rows = np.ldexp(np.linspace(-1, 1, 4 * count, dtype=np.float32).reshape(count, 4), exponent)
    half = to_half(rows).astype(np.float64)
    assert np.isfinite(half).all()
    unit = np.abs(rows).max(initial=0) / max(np.abs(half).max(initial=0), 1e-30)
    np.testing.assert_allclose(half * unit, rows, rtol=2e-3, atol=1e-30)


def test_every_matrix_of_a_layer_has_an_input():
    readers = [reader for names in READERS.values() for reader in names]
    assert len(set(readers)) == 7
    assert statistics.input_of("text_lm_head.weight") == ("text_lm_head", "head")
    assert statistics.is_calibrated("trunk/model.shared_block.layers.0.mlp.down_proj.weight")
    assert not statistics.is_calibrated("flow_step/decoder.final_proj.weight")


def test_the_index_states_what_is_there(made):
    raw = json.loads((made.folder / INDEX).read_text())
    assert raw["rows"] == sum(map(len, dialogues(made)))
    assert raw["checkpoint"].startswith("sha256 ")
