"""The LM engines equal the reference, for any cut into calls, also after the ring has wrapped."""

import itertools
import weakref

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_checkpoint import LM

from antiphon.export.lm_graph import Writing, build_branch, build_trunk
from antiphon.export.reference.lm import MossSpeechLM, rotary
from antiphon.quant import kv_cache
from antiphon.quant.blocks import dequantize
from antiphon.quant.recipe import METHODS, plain
from antiphon.quant.schemes import FP32, INT4_B32, INT8
from antiphon.runtime.backend import Engine
from antiphon.runtime.kv_ring import KVRing

ROWS = 70


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def reference():
    torch.manual_seed(1)
    return MossSpeechLM(LM).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def grid():
    """Half text rows, half spoken rows [1, T, 2]."""
    generator = torch.Generator().manual_seed(2)
    rows = torch.randint(0, 48, (1, ROWS, 2), generator=generator)
    rows[:, ROWS // 2 :, 0] = LM.modality_pad_token_id
    return rows


def export(model, scheme, folder):
    """The three engines, quantized products computed exactly."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    paths = [
        build_trunk(LM, weights.__getitem__, scheme, folder / "trunk.onnx"),
        build_branch(LM, "audio", weights.__getitem__, scheme, folder / "speech_branch.onnx"),
        build_branch(LM, "text", weights.__getitem__, scheme, folder / "text_branch.onnx"),
    ]
    return {path.stem: Engine.load(path, exact=True) for path in paths}


@pytest.fixture(scope="module")
def engines(reference, tmp_path_factory):
    return export(reference, FP32, tmp_path_factory.mktemp("lm"))


def run(engine, rows, ring, cuts):
    """Feed rows [1, T, H] in calls of the given sizes; returns every call's float output."""
    (name,) = {"embeddings", "hidden"} & engine.inputs.keys()
    (answer,) = {"hidden", "logits"} & engine.outputs.keys()
    found, start = [], 0
    for size in cuts:
        for count, _ in ring.plan(size):
            positions = torch.arange(start, start + count)
            rope = rotary(positions, LM.head_dim, LM.rope_theta, torch.float32)
            cos, sin = (row[None, :, : LM.head_dim // 2].numpy() for row in rope)
            feeds = {name: rows[:, start : start + count], "cos": cos, "sin": sin}
            outputs = engine.run(feeds | ring.feeds(start, count), [ring])
            found.append(outputs[answer])
            ring.advance(count)
            start += count
    return found


def pieces(cuts):
    """Cut points -> sizes of the calls."""
    edges = [0, *sorted(set(cuts)), ROWS]
    return [b - a for a, b in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(1, ROWS - 1), max_size=12).map(pieces)


@settings(max_examples=15)
@given(cuts=CUTS)
def test_trunk_equals_the_reference_for_any_cut(engines, reference, grid, cuts):
    x = reference.embed(grid)
    exact, _ = reference.model.shared_block(x)
    ring = KVRing.for_engine(engines["trunk"], 128, initial=16)
    got = run(engines["trunk"], x.numpy(), ring, cuts)
    np.testing.assert_allclose(np.concatenate(got, 1), exact.numpy(), atol=1e-5)


@settings(max_examples=10)
@given(cuts=CUTS)
def test_branches_equal_the_reference_for_any_cut(engines, reference, grid, cuts):
    hidden, _ = reference.model.shared_block(reference.embed(grid))
    text, audio = reference(grid)
    for name, exact in (("speech_branch", audio), ("text_branch", text)):
        ring = KVRing.for_engine(engines[name], 128, initial=16)
        got = run(engines[name], hidden.numpy(), ring, cuts)
        for logits, last in zip(got, np.cumsum(cuts) - 1, strict=True):
            np.testing.assert_allclose(logits, exact[:, last].numpy(), atol=1e-5)


def masked(block, x, visible, caches=None):
    """A block of the reference with a given mask [T, T], True where visible.

    caches: (layer, keys, values) -> what is remembered of them.
    """
    rope = rotary(torch.arange(x.shape[1]), LM.head_dim, LM.rope_theta, x.dtype)
    for i, layer in enumerate(block.layers):
        a, h = layer.self_attn, layer.input_layernorm(x)
        q, k, v = (p(h).unflatten(-1, (-1, 16)) for p in (a.q_proj, a.k_proj, a.v_proj))
        q, k, v = (t.transpose(1, 2) for t in (a.q_norm(q), a.k_norm(k), v))
        turned = [t * rope[0] + torch.cat((-t[..., 8:], t[..., :8]), -1) * rope[1] for t in (q, k)]
        q, k = turned
        if caches:
            k, v = caches(i, k, v)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, enable_gqa=True)
        x = x + a.o_proj(y.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return x


@settings(max_examples=15)
@given(cuts=CUTS, pinned=st.sampled_from([0, 5]))
def test_a_wrapped_ring_equals_a_window(engines, reference, grid, cuts, pinned):
    x = reference.embed(grid)
    ring = KVRing.for_engine(engines["trunk"], 24, pinned=pinned, chunk=4, initial=8)
    got = run(engines["trunk"], x.numpy(), ring, cuts)
    i, j = torch.arange(ROWS)[:, None], torch.arange(ROWS)[None]
    visible = (j <= i) & ((j > i - ring.window) | (j < pinned))
    exact = masked(reference.model.shared_block, x, visible)
    np.testing.assert_allclose(np.concatenate(got, 1), exact.numpy(), atol=1e-5)
    assert ring.length > 2.5 * ring.capacity


@pytest.fixture(scope="module")
def cache_scales(reference, grid):
    """Scales of the trunk's keys and values, by layer; too small ones, so that some are clipped."""
    _, kept = reference.model.shared_block(reference.embed(grid))
    found = {}
    for i, (k, v) in enumerate(kept):
        peaks = kv_cache.peaks(k.numpy(), rotary=True), kv_cache.peaks(v.numpy())
        found[f"model.shared_block.layers.{i}"] = tuple(kv_cache.scales(0.7 * p) for p in peaks)
    return found


@pytest.fixture(scope="module")
def coded(reference, cache_scales, tmp_path_factory):
    """The trunk with int8 caches."""
    weights, path = reference.state_dict(), tmp_path_factory.mktemp("coded") / "trunk.onnx"
    how = Writing(caches=cache_scales.__getitem__)
    build_trunk(LM, lambda name: weights[name].numpy(), FP32, path, how)
    return Engine.load(path, exact=True)


@settings(max_examples=25)
@given(cuts=CUTS, pinned=st.sampled_from([0, 5]), capacity=st.sampled_from([24, 128]))
def test_int8_caches_equal_the_reference_that_remembers_codes(
    coded, cache_scales, reference, grid, cuts, pinned, capacity
):
    """Also when the ring has wrapped; wherever the reference's rows fall into the same codes."""

    def remembered(i, *rows):
        pairs = zip(rows, cache_scales[f"model.shared_block.layers.{i}"], strict=True)
        coded = [(kv_cache.encode(row.numpy(), scale), scale) for row, scale in pairs]
        return [torch.from_numpy(kv_cache.decode(*pair)) for pair in coded]

    x = reference.embed(grid)
    ring = KVRing.for_engine(coded, capacity, pinned=pinned, chunk=4, initial=8)
    got = np.concatenate(run(coded, x.numpy(), ring, cuts), 1)
    i, j = torch.arange(ROWS)[:, None], torch.arange(ROWS)[None]
    visible = (j <= i) & ((j > i - ring.window) | (j < pinned))
    exact = masked(reference.model.shared_block, x, visible, remembered).numpy()
    # sums in another order move a few rows in 10,000 across the border between two codes
    assert (np.abs(got - exact).max(axis=2) < 1e-4).mean() > 0.9
    np.testing.assert_allclose(got, exact, atol=5e-3)
    plain, _ = reference.model.shared_block(x)
    assert np.abs(plain.numpy() - exact).max() > 1e-2


def test_rewound_rows_leave_no_codes(coded, reference, grid):
    x = reference.embed(grid).numpy()
    ring, fresh = (KVRing.for_engine(coded, 128, initial=8) for _ in range(2))
    run(coded, x[:, ::-1].copy(), ring, [50])
    ring.rewind(50)
    for one, other in zip(
        run(coded, x, ring, [30, 40]), run(coded, x, fresh, [30, 40]), strict=True
    ):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("scheme", [INT8, INT4_B32], ids=lambda s: s.name)
def test_quantized_engines_equal_the_reference_with_rounded_weights(
    reference, grid, scheme, tmp_path
):
    rounded = MossSpeechLM(LM).eval().requires_grad_(False)
    state = reference.state_dict()
    for name, weight in state.items():
        if "proj" in name or "head" in name:
            rule = plain(scheme).rule_of(f"trunk/{name}")
            kept = rule.scheme.fit(weight.shape[1])
            codes = METHODS[rule.method](weight.numpy(), kept)
            state[name] = torch.from_numpy(dequantize(codes))
    rounded.load_state_dict(state)
    engines = export(reference, scheme, tmp_path)
    x = rounded.embed(grid)
    hidden = rounded.model.shared_block(x)[0].numpy()
    ring = KVRing.for_engine(engines["trunk"], 128)
    np.testing.assert_allclose(
        np.concatenate(run(engines["trunk"], x.numpy(), ring, [50, 1, 19]), 1), hidden, atol=1e-4
    )
    text, audio = rounded(grid)
    for name, exact in (("speech_branch", audio), ("text_branch", text)):
        ring = KVRing.for_engine(engines[name], 128)
        (logits,) = run(engines[name], hidden, ring, [ROWS])
        np.testing.assert_allclose(logits, exact[:, -1].numpy(), atol=1e-4)


def test_interface(engines):
    trunk, branch = engines["trunk"], engines["text_branch"]
    caches = [f"{kind}_{i}" for i in range(2) for kind in ("key", "value")]
    rows = ["cos", "sin", "mask", "write_index"]
    assert sorted(trunk.inputs) == sorted(["embeddings", *rows, *caches])
    assert sorted(trunk.outputs) == sorted(["hidden", *(f"{name}_out" for name in caches)])
    assert sorted(branch.inputs) == sorted(["hidden", *rows, *caches[:2]])
    assert trunk.inputs["cos"].shape == (1, "S", 8)
    assert trunk.inputs["mask"].shape == ("S", "C")
    assert trunk.inputs["key_1"].shape == (1, 2, "C", 16)
    assert branch.outputs["logits"].shape == (1, 96)


def test_weights_are_streamed(reference, tmp_path):
    weights = {name: value.numpy() for name, value in reference.state_dict().items()}
    handed_out = []

    def read(name):
        assert sum(r() is not None for r in handed_out) <= 1, "earlier weights are still held"
        array = weights[name].copy()
        handed_out.append(weakref.ref(array))
        return array

    for scheme in (FP32, INT8):
        build_trunk(LM, read, scheme, tmp_path / "trunk.onnx")
        build_branch(LM, "text", read, scheme, tmp_path / "text_branch.onnx")
    assert len(handed_out) == 2 * 35
