"""Weights fitted to their inputs: the same model, better rounded, or refused in time."""

import shutil

import numpy as np
import pytest
import torch
from tiny_checkpoint import make_checkpoint

from antiphon.export import fitting
from antiphon.export.calibration import DIALOGUES, calibrate
from antiphon.export.checkpoint import Checkpoint
from antiphon.export.engines import PartWriter
from antiphon.export.fitting import Fitting, statistics_for
from antiphon.export.matrix import Fitted, as_rows, whole
from antiphon.export.pipeline import export
from antiphon.export.plan import Plan
from antiphon.export.proof.dialogues import Question
from antiphon.export.proof.evaluation import evaluate
from antiphon.export.reference.lm import rotary
from antiphon.quant import kv_cache
from antiphon.quant.awq import Scaling
from antiphon.quant.blocks import dequantize
from antiphon.quant.error import sqnr_db
from antiphon.quant.gptq import gptq
from antiphon.quant.hessian import Hessian
from antiphon.quant.rounding import search
from antiphon.quant.schemes import FP8, INT4_B32
from antiphon.runtime.backend import Engine
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError, CorruptFile
from antiphon.runtime.kv_ring import HIDDEN
from antiphon.runtime.lm import LanguageModel

TEXTS = ("How are you?", "What is it?", "Why?", "Who said that?")
LAYER = "model.shared_block.layers.0"


def recipe(path, *rules):
    """A recipe file; a rule is a pattern, a scheme and maybe a method."""
    keys = ("match", "scheme", "method")
    texts = ([f'{k} = "{v}"' for k, v in zip(keys, rule, strict=False)] for rule in rules)
    path.write_text("\n".join("[[rules]]\n" + "\n".join(lines) for lines in texts))
    return path


def layers(method, scheme="int4_b32"):
    """Rules that store all layers so, heads as int8, the rest as float32."""
    return (
        ("*_block.layers.*", scheme, method),
        ("*_lm_head.weight", "int8"),
        ("tables/*", "fp16"),
        ("*", "fp32"),
    )


@pytest.fixture(scope="module")
def source(random_bundle):
    return Checkpoint.open(random_bundle.path.parent / "checkpoint")


@pytest.fixture(scope="module")
def seen(random_bundle, source, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fitting") / "statistics"
    return calibrate(source.directory, folder, random_bundle.path, texts=TEXTS, dialogues=6)


def reader(source):
    """What an export reads: matrices by rows, vectors at once."""

    def read(name):
        value = source.read("lm", name)
        return _Stored(value) if value.ndim == 2 else value

    return read


class _Stored:
    """A matrix on disk."""

    def __init__(self, value):
        self.value, self.shape = value, value.shape

    def read(self, start, stop):
        return self.value[start:stop]


def fitted(source, seen, path, *rules):
    plan = Plan.make(source, recipe(path / "mine.toml", *rules), "cuda")
    return Fitting(source, plan, seen, reader(source))


def loaded(source, values):
    """The reference with other weights in the place of some."""
    lm = source.reference().lm
    state = {name: torch.from_numpy(np.ascontiguousarray(v)) for name, v in values.items()}
    lm.load_state_dict(state, strict=False)
    return lm


def logits(lm, seen):
    with np.load(seen.folder / DIALOGUES) as stored, torch.no_grad():
        rows = [lm(torch.from_numpy(stored[name])[None]) for name in sorted(stored)]
    return [torch.cat([pair[i][0] for pair in rows]).numpy() for i in range(2)]


def rounded(matrix, scheme=INT4_B32):
    """What an engine would multiply by, in the units that the reader gave."""
    assert isinstance(matrix, Fitted)
    return dequantize(matrix.method(whole(matrix), scheme))


def some_scales(rng):
    """In the place of a search: any scales."""

    def scales(matrices, sample, scheme, *, source=None):
        count = sample.shape[1] if source is None else int(source.max()) + 1
        return Scaling(np.exp(rng.standard_normal(count)).astype(np.float32), 0.5, 0.0, 0.0)

    return scales


def test_scaling_leaves_the_model_as_it_was(source, seen, tmp_path, monkeypatch):
    """Any scales, as large as they come: all four ways of folding are exact, heads too."""
    monkeypatch.setattr(fitting.awq, "scales", some_scales(np.random.default_rng(8)))
    rules = (("*_lm_head.weight", "int8", "awq"), *layers("awq")[:1], *layers("awq")[2:])
    read = fitted(source, seen, tmp_path, *rules)
    values = {n: whole(read(n)) for n in source.names("lm") if not n.endswith("embed.weight")}
    changed = [n for n, v in values.items() if not np.array_equal(v, source.read("lm", n))]
    kept = {f"{a}_norm.weight" for a in ("q", "k")} | {"embed_tokens.weight"}
    assert {n.rsplit(".", 2)[-2] + ".weight" for n in values.keys() - set(changed)} == kept
    for exact, same in zip(
        logits(source.reference().lm, seen), logits(loaded(source, values), seen), strict=True
    ):
        np.testing.assert_allclose(same, exact, atol=1e-4 * np.abs(exact).max())


@pytest.mark.parametrize("method", ["gptq", "awq+gptq"])
def test_codes_are_those_of_the_whole_matrix(method, source, seen, tmp_path):
    read = fitted(source, seen, tmp_path, *layers(method))
    for tail in ("self_attn.v_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"):
        name = f"{LAYER}.{tail}.weight"
        matrix, hessian = read(name), Hessian(source.shapes("lm")[name][1])
        x = seen.inputs(name).rows.astype(np.float32)
        scales = read._at_inputs(fitting.input_of(name))
        assert (scales is None) == (method == "gptq")
        hessian.add(x if scales is None else x / scales)
        exact = gptq(whole(matrix), hessian.matrix(), INT4_B32)
        found = matrix.method(whole(matrix), INT4_B32)  # float additions differ in their order
        np.testing.assert_allclose(found.scales, exact.scales, rtol=1e-5)
        assert (found.codes == exact.codes).mean() > 0.99


def output_error(source, seen, read):
    """Power of the error over that of the outputs, summed over the matrices of one layer."""
    total = 0.0
    for name in [n for n in source.names("lm") if n.startswith(LAYER) and "_proj" in n]:
        x = seen.inputs(name).rows.astype(np.float32)
        scales, weight = read._at_inputs(fitting.input_of(name)), source.read("lm", name)
        got = rounded(read(name)) if scales is None else rounded(read(name)) / scales
        key, tail = name.removesuffix(".weight").rsplit(".", 2)[0], name.split(".")[-2]
        made = {"v_proj": (key, "o"), "up_proj": (key, "down")}.get(tail)
        divisor = read._scaling(made) if made else None
        got = got if divisor is None else got * divisor[:, None]
        total += np.square((got - weight) @ x.T).sum() / np.square(weight @ x.T).sum()
    return total


def test_each_method_leaves_less_error_than_the_one_before(source, seen, tmp_path):
    found = {
        method: output_error(source, seen, fitted(source, seen, tmp_path, *layers(method)))
        for method in ("awq", "gptq", "awq+gptq")
    }
    plain = fitted(source, seen, tmp_path, *layers("mse"))
    names = [n for n in source.names("lm") if n.startswith(LAYER) and "_proj" in n]
    assert not any(isinstance(plain(name), Fitted) for name in names)
    assert found["gptq"] < 0.7 * found["awq"]
    assert found["awq+gptq"] < 0.7 * found["awq"]


def test_one_scaled_reader_is_enough(source, seen, tmp_path):
    """v keeps its own rounding; its inputs are multiplied like those of q and k."""
    rules = (("*.v_proj.weight", "int8"), *layers("awq"))
    read = fitted(source, seen, tmp_path, *rules)
    v, name = read(f"{LAYER}.self_attn.v_proj.weight"), f"{LAYER}.self_attn.v_proj.weight"
    assert not isinstance(v, Fitted)
    inputs, outputs = read._scaling((LAYER, "qkv")), read._scaling((LAYER, "o"))
    exact = source.read("lm", name) * inputs / outputs[:, None]
    np.testing.assert_allclose(as_rows(v).read(3, 9), exact[3:9], rtol=1e-6)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ([("*", "int8", "gptq")], r"encoder/.* as int8 by gptq, which is for matrices of the lang"),
        (layers("awq", "fp16"), r"q_proj\.weight as fp16 by awq, which is for .* stored as codes"),
        ([("tables/*", "int8", "awq"), ("*", "fp32")], r"embed_tokens\.weight as int8_row by awq"),
    ],
)
def test_methods_are_for_what_was_seen(rules, message, source, tmp_path):
    with pytest.raises(ConfigError, match=message):
        Plan.make(source, recipe(tmp_path / "bad.toml", *rules), "cpu")


def test_statistics_are_asked_for_before_any_work(source, tmp_path):
    path = recipe(tmp_path / "mine.toml", *layers("gptq"))
    with pytest.raises(ConfigError, match=r"by gptq needs statistics: antiphon calibrate .* DIR"):
        export(source.directory, tmp_path / "out", weights=path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.toml"]
    assert statistics_for(Plan.make(source, "int8", "cpu"), source, None) is None


def test_int8_caches_ask_for_statistics_before_any_work(source, seen, tmp_path):
    with pytest.raises(ConfigError, match=r"kv int8 needs statistics: antiphon calibrate .* DIR"):
        export(source.directory, tmp_path / "out", kv="int8")
    with pytest.raises(ConfigError, match="kv 'int4': choose one of float32, int8"):
        export(source.directory, tmp_path / "out", kv="int4")
    old = tmp_path / "old"
    shutil.copytree(seen.folder, old)
    with np.load(old / f"{LAYER}.npz") as stored:
        without = {name: array for name, array in stored.items() if name != "key_peak"}
    np.savez(old / f"{LAYER}.npz", allow_pickle=False, **without)
    with pytest.raises(CorruptFile, match=r"layers\.0\.npz: .*key_peak.*; calibrate again"):
        export(source.directory, tmp_path / "out", kv="int8", statistics=old)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_scaled_values_have_scaled_caches(source, seen, tmp_path, monkeypatch):
    """Scales folded into the value projection are folded into those of its int8 cache."""
    monkeypatch.setattr(fitting.awq, "scales", some_scales(np.random.default_rng(9)))
    read = fitted(source, seen, tmp_path, *layers("awq"))
    values = {n: whole(read(n)) for n in source.names("lm") if not n.endswith("embed.weight")}
    lm, peaks = loaded(source, values), []
    with np.load(seen.folder / DIALOGUES) as stored, torch.no_grad():
        for name in sorted(stored):
            x = lm.embed(torch.from_numpy(stored[name])[None])
            [(keys, rows)] = lm.model.shared_block(x)[1]
            peaks.append((kv_cache.peaks(keys.numpy(), rotary=True), kv_cache.peaks(rows.numpy())))
    assert not np.allclose(read._scaling((LAYER, "o")), 1, atol=0.5)
    for scales, side in zip(read.cache_scales(LAYER), zip(*peaks, strict=True), strict=True):
        np.testing.assert_allclose(scales, kv_cache.scales(np.max(side, axis=0)), rtol=1e-3)


def test_an_export_keeps_int8_caches(source, seen, tmp_path):
    bundles = {}
    for kv in ("float32", "int8"):
        export(
            source.directory,
            tmp_path / kv,
            weights="fp32",
            kv=kv,
            statistics=seen.folder,
            noise_frames=1200,
        )
        bundles[kv] = Bundle.open(tmp_path / kv)
    for name, entry in bundles["int8"].manifest.engines.items():
        kept = {s.dtype for s in entry.inputs if "key_" in s.name or "value_" in s.name}
        lm = name in ("trunk", "speech_branch", "text_branch")
        assert kept == ({"int8"} if lm else set() if name == "vocoder" else {"float32"}), name
        if lm:
            assert 35 < entry.parity["sqnr_db"] < 70
    with np.load(seen.folder / DIALOGUES) as stored:
        rows = stored[sorted(stored)[0]]
    floats, coded = (LanguageModel(bundle, exact=True) for bundle in bundles.values())
    for lm in (floats, coded):
        lm.prefill(rows)
    for ask in (LanguageModel.speech_logits, LanguageModel.text_logits):
        assert 35 < sqnr_db(ask(floats), ask(coded)) < 70
    sizes = [sum(stage.ring.nbytes for stage in lm._stages) for lm in (floats, coded)]
    assert sizes[0] == 4 * sizes[1]
    asked = [Question(name="why", pcm=None, text="Why?")]
    found = evaluate(bundles["int8"], asked, bundles["float32"])
    assert {n for n, e in found.engines.items() if e.noise} == {
        "trunk",
        "speech_branch",
        "text_branch",
    }
    assert min(e.sqnr_db for e in found.engines.values() if e.noise) > 30


def test_statistics_of_another_checkpoint_are_refused(seen, tmp_path):
    other = make_checkpoint(tmp_path)
    with pytest.raises(ConfigError, match="statistics of another checkpoint"):
        export(other, tmp_path / "out", statistics=seen.folder)
    assert not (tmp_path / "out").exists()


def test_an_export_uses_them(source, seen, tmp_path):
    settings = {"statistics": seen.folder, "noise_frames": 20, "jobs": 2, "parity": False}
    for method in ("rtn", "gptq"):
        path = recipe(tmp_path / f"{method}.toml", *layers(method))
        export(source.directory, tmp_path / method, weights=path, **settings)
        assert Bundle.open(tmp_path / method).manifest.engines["trunk"].scheme == "int4_b32"
    plain, compensated = ((tmp_path / name / "trunk.data").read_bytes() for name in ("rtn", "gptq"))
    assert len(plain) == len(compensated)
    assert plain != compensated


def test_fp8_engines_hold_what_numpy_decodes(source, tmp_path):
    """Weight-only E4M3 on the CPU: the numbers that a target with kernels for it would see."""
    path, c = recipe(tmp_path / "mine.toml", *layers("mse", "fp8")), source.lm_config
    plan = Plan.make(source, path, "cuda")
    assert plan.stated("trunk") == "fp8"
    values = {
        name: dequantize(search(source.read("lm", name), FP8))
        for name in source.names("lm")
        if "_proj" in name and ".layers." in name
    }
    PartWriter(source, plan, tmp_path, 10, 1, lambda count: None).write("trunk")
    x = np.random.default_rng(3).standard_normal((1, 5, c.hidden_size)).astype(np.float32)
    with torch.no_grad():
        wanted, _ = loaded(source, values).model.shared_block(torch.from_numpy(x))
    cos, sin = rotary(torch.arange(5), c.head_dim, c.rope_theta, torch.float32)
    half, engine = c.head_dim // 2, Engine.load(tmp_path / "trunk.onnx")
    feeds = {
        "embeddings": x,
        "cos": cos[None, :, :half].numpy(),
        "sin": sin[None, :, :half].numpy(),
    }
    feeds["mask"] = np.triu(np.full((5, 5), HIDDEN, np.float32), 1)
    empty = np.zeros((1, c.num_key_value_heads, 5, c.head_dim), np.float32)
    feeds |= {"write_index": np.zeros(1, np.int64), "key_0": empty, "value_0": empty}
    np.testing.assert_allclose(engine.run(feeds)["hidden"], wanted.numpy(), atol=2e-5)


def test_fp8_is_refused_where_it_cannot_run(source):
    with pytest.raises(ConfigError, match="fp8, which target cpu cannot run; int8 is"):
        Plan.make(source, "fp8", "cpu")
    assert "fp8" in Plan.make(source, "fp8", "cuda").stated("trunk")
