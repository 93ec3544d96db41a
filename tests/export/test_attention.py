"""Attention over caches: rows land in place, as floats or as the codes of `quant.kv_cache`."""

import itertools

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.export.attention import Caches, attend
from antiphon.export.graph import GraphBuilder
from antiphon.quant import kv_cache
from antiphon.runtime.backend import WARNING, Engine
from antiphon.runtime.kv_ring import KVRing

GROUPS, DIM, ROWS = 2, 8, 9
NAMES = ("key_0", "value_0")


def normal(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


VALUES = {name: normal(1, GROUPS, ROWS, DIM, seed=i) for i, name in enumerate("qkv")}
SCALES = tuple(kv_cache.scales(0.8 * kv_cache.peaks(VALUES[name])) for name in "kv")  # some clip


def build(path, heads, scales):
    g = GraphBuilder(path)
    q, k, v = (
        g.input(n, np.float32, [1, count, "S", DIM])
        for n, count in (("q", heads), ("k", GROUPS), ("v", GROUPS))
    )
    mask, index = g.input("mask", np.float32, ["S", "C"]), g.input("write_index", np.int64, [1])
    y = attend(g, (q, k, v), Caches(NAMES, (1, GROUPS, "C", DIM), scales), mask, index)
    g.output("y", np.float32, [1, heads, "S", DIM], y)
    onnx.checker.check_model(str(g.save()), full_check=True)
    return Engine.load(path, log_level=WARNING)


def run(engine, values, cuts):
    """Outputs [1, H, S, D] of rows fed in pieces that end at `cuts`, and the ring behind them."""
    ring, parts = KVRing.for_engine(engine, 16, pinned=16, initial=2), []
    edges = [0, *sorted(set(cuts)), ROWS]
    for start, stop in itertools.pairwise(edges):
        feeds = {n: a[:, :, start:stop] for n, a in values.items()}
        parts.append(engine.run(feeds | ring.feeds(start, stop - start), [ring])["y"])
        ring.advance(stop - start)
    return np.concatenate(parts, 2), ring


def exact(q, k, v):
    """Causal attention in float64."""
    k, v = (np.repeat(x, q.shape[1] // GROUPS, axis=1) for x in (k, v))
    scores = q.astype("f8") @ k.swapaxes(2, 3) / np.sqrt(DIM)
    scores += np.triu(np.full((ROWS, ROWS), -1e9), 1)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ v


def test_floats_are_written_in_place(tmp_path, capfd):
    values = VALUES | {"q": normal(1, 2 * GROUPS, ROWS, DIM, seed=3)}
    y, ring = run(build(tmp_path / "g.onnx", 2 * GROUPS, None), values, [4, 5])
    np.testing.assert_array_equal(ring.buffers["key_0"].numpy()[:, :, :ROWS], values["k"])
    np.testing.assert_allclose(y, exact(*values.values()), atol=1e-5)
    assert "in-place optimization not activated" not in "".join(capfd.readouterr())


def test_codes_are_written_in_place(tmp_path, capfd):
    engine = build(tmp_path / "g.onnx", GROUPS, SCALES)
    assert {engine.inputs[name].dtype for name in NAMES} == {"int8"}
    y, ring = run(engine, VALUES, [4, 5])
    kept = []
    for side, name, scale in zip("kv", NAMES, SCALES, strict=True):
        codes = kv_cache.encode(VALUES[side], scale)
        np.testing.assert_array_equal(ring.buffers[name].numpy()[:, :, :ROWS], codes)
        assert codes.max() == 127
        assert codes.min() == -128
        kept.append(kv_cache.decode(codes, scale))
    np.testing.assert_allclose(y, exact(VALUES["q"], *kept), atol=1e-5)
    assert "in-place optimization not activated" not in "".join(capfd.readouterr())


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    return build(tmp_path_factory.mktemp("coded") / "g.onnx", GROUPS, SCALES)


@given(cuts=st.lists(st.integers(1, ROWS - 1), max_size=8))
@settings(max_examples=30)
def test_a_row_has_the_same_codes_however_rows_are_cut(coded, cuts):
    whole, offline = run(coded, VALUES, [])
    y, ring = run(coded, VALUES, cuts)
    for name in NAMES:
        rows = [r.buffers[name].numpy()[:, :, :ROWS] for r in (ring, offline)]
        np.testing.assert_array_equal(*rows)
    np.testing.assert_allclose(y, whole, atol=1e-6)


def test_codes_take_a_quarter_of_the_memory(coded, tmp_path):
    floats = build(tmp_path / "g.onnx", GROUPS, None)
    rings = [KVRing.for_engine(engine, 64, initial=16) for engine in (floats, coded)]
    assert rings[0].nbytes == 4 * rings[1].nbytes
    assert rings[1].layout.row_bytes == 2 * GROUPS * DIM
