"""The ring against a plain list of everything ever written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny import attention_graph

from antiphon.runtime.backend import Engine
from antiphon.runtime.errors import BundleError, CapacityError, ConfigError
from antiphon.runtime.kv_ring import CacheLayout, KVRing

HEADS, GROUPS, DIM = 4, 2, 8
LAYOUT = CacheLayout(names=("key_0", "value_0"), batch=1, heads=GROUPS, head_dim=DIM)


@st.composite
def rings(draw: st.DrawFn) -> KVRing:
    ring = draw(st.integers(1, 12))
    pinned = draw(st.integers(0, 4))
    chunk = draw(st.integers(1, ring))
    initial = draw(st.integers(1, 20))
    return KVRing(LAYOUT, pinned + ring, pinned=pinned, chunk=chunk, initial=initial)


ACTIONS = st.lists(
    st.tuples(st.sampled_from(["write", "write", "write", "rewind", "evict"]), st.integers(0, 9)),
    max_size=30,
)


class Plain:
    """Every row ever written, as stamps; sees what the ring should see, written from the rule."""

    def __init__(self, ring: KVRing) -> None:
        self.ring = ring
        self.stamps: list[int] = []
        self.first = ring.pinned

    def oldest(self, query: int) -> int:
        return max(self.first, query - self.ring.window + 1)

    def visible(self, query: int) -> set[int]:
        pinned = self.stamps[: min(self.ring.pinned, query + 1)]
        return {*pinned, *self.stamps[self.oldest(query) : query + 1]}


def write(ring: KVRing, plain: Plain, storage: NDArray[np.int64], rows: int, stamp: int) -> int:
    """Write `rows` new stamps through the plan; check what every row sees. Next free stamp."""
    for count, index in ring.plan(rows):
        mask = ring.feeds(ring.length, count)["mask"]
        stamps = range(stamp, stamp + count)
        storage[index : index + count] = stamps
        plain.stamps += stamps
        for i in range(count):
            slots = np.flatnonzero(mask[i] == 0)
            assert len(slots) == len(set(storage[slots])), "a row is seen twice"
            assert set(storage[slots]) == plain.visible(ring.length + i)
        assert set(np.unique(mask)) <= {0, np.float32(-6e4)}
        ring.advance(count)
        stamp += count
    return stamp


def test_no_memory_leaves_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    ring = KVRing(LAYOUT, 16, initial=4)

    def full(*_: object) -> None:
        raise CapacityError("no memory")

    with monkeypatch.context() as patch:
        patch.setattr("antiphon.runtime.kv_ring.Buffer", full)
        with pytest.raises(CapacityError, match="no memory"):
            ring.feeds(0, 6)
    assert ring.allocated == 4
    assert ring.feeds(0, 6)["mask"].shape == (6, ring.allocated)
    assert ring.buffers["key_0"].numpy().shape[2] == ring.allocated == 8


@given(ring=rings(), actions=ACTIONS)
@settings(max_examples=150)
def test_any_history_sees_exactly_the_visible_rows(
    ring: KVRing, actions: list[tuple[str, int]]
) -> None:
    plain, storage, stamp = Plain(ring), np.full(ring.capacity, -1), 0
    for action, n in actions:
        if action == "write":
            stamp = write(ring, plain, storage, n, stamp)
        elif action == "rewind":
            if n > ring.rewindable:
                with pytest.raises(CapacityError, match="cannot rewind"):
                    ring.rewind(n)
            else:
                ring.rewind(n)
                del plain.stamps[len(plain.stamps) - n :]
        elif 0 < n <= len(plain.stamps) - plain.oldest(len(plain.stamps)):
            plain.first = plain.oldest(len(plain.stamps)) + n
            ring.evict(n)
        assert ring.length == len(plain.stamps)
        assert ring.allocated <= ring.capacity
    write(ring, plain, storage, 2 * ring.capacity, stamp)


@given(ring=rings(), rows=st.integers(1, 40))
def test_rows_are_rewindable_until_overwritten_and_chunk_rows_after(
    ring: KVRing, rows: int
) -> None:
    for count, _ in ring.plan(rows):
        ring.mask(ring.length, count)
        ring.advance(count)
    expected = rows if rows <= ring.capacity else ring.chunk
    assert ring.rewindable == expected


@given(ring=rings(), rows=st.integers(0, 60), start=st.integers(0, 30))
def test_plan_is_contiguous_and_complete(ring: KVRing, rows: int, start: int) -> None:
    ring.advance(start)
    position = start
    for count, index in ring.plan(rows):
        assert [ring.slot(position + i) for i in range(count)] == [*range(index, index + count)]
        assert count <= ring.chunk or position + count <= ring.capacity
        position += count
    assert position == start + rows


def attend(q: NDArray, k: NDArray, v: NDArray, visible: list[int]) -> NDArray:
    """One query row [H, D] over rows k, v [T, G, D] in float64."""
    k, v = (np.repeat(x[visible].astype("f8"), HEADS // GROUPS, axis=1) for x in (k, v))
    scores = np.einsum("hd,thd->ht", q.astype("f8"), k) / np.sqrt(DIM)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    return np.einsum("ht,thd->hd", weights / weights.sum(1, keepdims=True), v)


@pytest.fixture(scope="session")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    path = tmp_path_factory.mktemp("graph") / "attention.onnx"
    return Engine.load(attention_graph(path, HEADS, GROUPS, DIM))


@given(
    ring=rings(),
    cuts=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    evict=st.integers(0, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=60)
def test_engine_attends_to_the_visible_window(
    attention: Engine, ring: KVRing, cuts: list[int], evict: int, seed: int
) -> None:
    rows, rng = sum(cuts), np.random.default_rng(seed)
    q = rng.standard_normal((rows, HEADS, DIM), dtype="f4")
    k, v = rng.standard_normal((2, rows, GROUPS, DIM), dtype="f4")
    plain = Plain(ring)
    for cut in cuts:
        for count, _ in ring.plan(cut):
            new = slice(ring.length, ring.length + count)
            feeds = ring.feeds(ring.length, count)
            feeds |= {n: x[new].swapaxes(0, 1)[None] for n, x in (("q", q), ("key", k))}
            y = attention.run(feeds | {"value": v[new].swapaxes(0, 1)[None]}, [ring])["y"]
            plain.stamps += range(new.start, new.stop)
            for i, position in enumerate(plain.stamps[new]):
                expected = attend(q[position], k, v, sorted(plain.visible(position)))
                np.testing.assert_allclose(y[0, :, i], expected, atol=2e-6)
            ring.advance(count)
        if 0 < evict <= ring.length - ring.first:
            ring.evict(evict)
            plain.first = plain.oldest(len(plain.stamps)) + evict


def test_rows_that_see_each_other() -> None:
    ring = KVRing(LAYOUT, 8, pinned=8)
    ring.mask(0, 3)
    ring.advance(3)
    assert (ring.mask(3, 2, causal=False)[:, :5] == 0).all()
    assert (ring.mask(3, 2, causal=False)[:, 5:] < 0).all()


def test_linear_cache_is_full_at_its_capacity() -> None:
    ring = KVRing(LAYOUT, 5, pinned=5, initial=2)
    assert ring.plan(5) == [(5, 0)]
    ring.advance(4)
    assert ring.free == 1
    with pytest.raises(CapacityError, match="does not fit in a cache of 5 rows"):
        ring.plan(2)
    ring.rewind(4)
    assert ring.plan(5) == [(5, 0)]


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_storage_doubles_and_keeps_its_rows(dtype: str) -> None:
    ring = KVRing(replace(LAYOUT, dtype=dtype), 20, initial=4)
    before = ring.buffers
    ring.buffers["key_0"].numpy()[:] = 7
    ring.mask(0, 9)
    assert ring.allocated == 16
    assert ring.buffers is not before
    keys = ring.buffers["key_0"].numpy()
    assert keys.dtype == dtype
    assert (keys[:, :, :4] == 7).all()
    assert (keys[:, :, 4:] == 0).all()
    assert ring.nbytes == 2 * GROUPS * 16 * DIM * np.dtype(dtype).itemsize
    ring.mask(0, 20)
    assert ring.allocated == 20


def test_clearing_leaves_nothing_behind_a_mask() -> None:
    ring = KVRing(LAYOUT, 20, initial=4)
    ring.mask(0, 9)
    ring.advance(9)
    ring.buffers["value_0"].numpy()[:] = np.nan
    before = ring.buffers
    ring.clear()
    assert ring.buffers is not before, "or engines would go on with the old storage"
    assert (ring.buffers["value_0"].numpy() == 0).all()
    assert (ring.length, ring.allocated) == (0, 4)


def rotated(x: NDArray, positions: NDArray, frequencies: NDArray) -> NDArray:
    """RoPE of rows x [T, D] as complex numbers."""
    low, high = np.split(x.astype("f8"), 2, axis=-1)
    turned = (low + 1j * high) * np.exp(1j * positions[:, None] * frequencies)
    return np.concatenate((turned.real, turned.imag), axis=-1)


@given(offsets=st.lists(st.integers(0, 500), max_size=5), seed=st.integers(0, 9))
def test_pinned_keys_turn_as_if_written_later(offsets: list[int], seed: int) -> None:
    keys = np.random.default_rng(seed).standard_normal((3, DIM))
    frequencies = 1e4 ** (-np.arange(0, DIM, 2) / DIM)
    ring = KVRing(LAYOUT, 600, pinned=3)
    ring.mask(0, 512)
    ring.advance(512)
    for name in LAYOUT.names:
        ring.buffers[name].numpy()[:, :, :3] = rotated(keys, np.arange(3), frequencies)
    for offset in [*sorted(offsets), 0]:
        ring.evict(max(0, offset - ring.evicted))
        ring.rotate_pinned(offset, frequencies)
        expected = rotated(keys, np.arange(3) + offset, frequencies)
        np.testing.assert_allclose(ring.buffers["key_0"].numpy()[0, 1, :3], expected, atol=1e-6)
    expected = rotated(keys, np.arange(3), frequencies)
    np.testing.assert_allclose(ring.buffers["value_0"].numpy()[0, 1, :3], expected, atol=1e-6)


@given(offsets=st.lists(st.integers(0, 500), max_size=9), seed=st.integers(0, 9))
def test_codes_turn_as_often_as_one_likes_and_are_rounded_once(
    offsets: list[int], seed: int
) -> None:
    """To within half a code, and a clipped one to where it was clipped."""
    written = np.random.default_rng(seed).integers(-128, 128, (3, DIM)).astype(np.int8)
    written[:, 0] = 127  # so that some pairs are longer than a code can be
    frequencies = 1e4 ** (-np.arange(0, DIM, 2) / DIM)
    ring = KVRing(replace(LAYOUT, dtype="int8"), 600, pinned=3)
    ring.mask(0, 512)
    ring.advance(512)
    for name in LAYOUT.names:
        ring.buffers[name].numpy()[:, :, :3] = written
    for offset in [*sorted(offsets), 0]:
        ring.evict(max(0, offset - ring.evicted))
        ring.rotate_pinned(offset, frequencies)
        turned = rotated(written, np.full(3, offset), frequencies)
        codes = ring.buffers["key_0"].numpy()[0, 1, :3]
        assert codes.dtype == np.int8
        np.testing.assert_allclose(codes, np.clip(turned, -128, 127), atol=0.5 + 1e-4)
    np.testing.assert_array_equal(ring.buffers["key_0"].numpy()[0, 1, :3], written)
    np.testing.assert_array_equal(ring.buffers["value_0"].numpy()[0, 1, :3], written)


def test_turning_by_nothing_before_the_pinned_rows_are_written() -> None:
    ring = KVRing(LAYOUT, 9, pinned=3)
    ring.rotate_pinned(0, np.ones(DIM // 2))
    ring.mask(0, 5)
    ring.buffers["key_0"].numpy()[:] = 1
    ring.advance(5)
    ring.rotate_pinned(0, np.ones(DIM // 2))
    assert (ring.buffers["key_0"].numpy() == 1).all()


@pytest.mark.parametrize(
    ("capacity", "pinned", "chunk"), [(4, 5, 1), (4, -1, 1), (4, 2, 3), (4, 0, 0)]
)
def test_impossible_sizes_are_refused(capacity: int, pinned: int, chunk: int) -> None:
    with pytest.raises(ConfigError, match="need pinned"):
        KVRing(LAYOUT, capacity, pinned=pinned, chunk=chunk)


def test_layout_is_read_from_the_engine(attention: Engine) -> None:
    assert set(CacheLayout.of(attention).names) == {"key_0", "value_0"}
    ring = KVRing.for_engine(attention, 8, initial=4)
    assert ring.buffers["key_0"].numpy().shape == (1, GROUPS, 4, DIM)
    with pytest.raises(BundleError, match="caches frame_key_"):
        CacheLayout.of(attention, prefix="frame_")
