"""Engines: zero copy, typed errors, the two accuracy levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, save
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state
from tiny import attention_graph, floats, model

from antiphon.runtime.backend import CPU, CUDA, WARNING, Buffer, Engine
from antiphon.runtime.errors import BundleError, CapacityError, ConfigError
from antiphon.runtime.kv_ring import KVRing

IN_PLACE_WARNING = "in-place optimization not activated"


@pytest.fixture
def attention(tmp_path: Path) -> Path:
    return attention_graph(tmp_path / "attention.onnx", 4, 2, 8)


def step(engine: Engine, ring: KVRing, rows: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(ring.length)
    sizes = {"q": 4, "key": 2, "value": 2}
    feeds = {n: rng.standard_normal((1, g, rows, 8), dtype="f4") for n, g in sizes.items()}
    y = engine.run(feeds | ring.feeds(ring.length, rows), [ring])["y"]
    ring.advance(rows)
    return y


def test_caches_are_written_in_place(attention: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = Engine.load(attention, log_level=WARNING)
    ring = KVRing.for_engine(engine, 64, initial=16)
    for rows in (3, 1, 5, 1, 20, 1):  # 20: the storage grows
        before = ring.length
        step(engine, ring, rows)
        assert (ring.buffers["key_0"].numpy()[0, :, before : ring.length] != 0).all()
    assert IN_PLACE_WARNING not in capfd.readouterr().err


def test_the_warning_that_would_tell_of_copies_still_exists(
    attention: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = Engine.load(attention, log_level=WARNING)
    feeds = KVRing.for_engine(engine, 4).feeds(0, 1)
    feeds |= {"q": np.ones((1, 4, 1, 8)), "key": np.ones((1, 2, 1, 8))}
    feeds |= {n: np.zeros((1, 2, 4, 8)) for n in ("key_0", "value_0")}
    out = engine.run(feeds | {"value": np.ones((1, 2, 1, 8))})  # caches as ordinary feeds
    assert out["key_0_out"].shape == (1, 2, 4, 8)
    assert IN_PLACE_WARNING in capfd.readouterr().err


def test_results_outlive_the_next_run(attention: Path) -> None:
    engine = Engine.load(attention)
    ring = KVRing.for_engine(engine, 64)
    results = [step(engine, ring, 1 + i % 3) for i in range(20)]
    copies = [y.copy() for y in results]
    step(engine, ring, 2)
    assert all((a == b).all() for a, b in zip(results, copies, strict=True))


def test_two_states_share_one_engine(attention: Path) -> None:
    engine = Engine.load(attention)
    one, two = KVRing.for_engine(engine, 8), KVRing.for_engine(engine, 8)
    for _ in range(3):
        assert (step(engine, one, 2) == step(engine, two, 2)).all()
    assert (one.buffers["key_0"].numpy() == two.buffers["key_0"].numpy()).all()


def test_bindings_do_not_pile_up(attention: Path) -> None:
    engine = Engine.load(attention)
    for _ in range(40):
        step(engine, KVRing.for_engine(engine, 4), 1)
    ring = KVRing.for_engine(engine, 64, initial=1)
    for _ in range(40):
        step(engine, ring, 1)
    assert len(engine._bindings) <= 32


def test_specs_name_symbolic_dimensions(attention: Path) -> None:
    engine = Engine.load(attention)
    assert engine.inputs["mask"].shape == ("S", "C")
    assert engine.inputs["write_index"].dtype == "int64"
    assert engine.outputs["y"].shape == (1, 4, "S", 8)
    assert engine.device == "cpu"


def test_buffer_is_a_view() -> None:
    buffer = Buffer((1, 2, 3, 4), np.float32)
    buffer.set_rows(np.ones((1, 2, 2, 4), np.float32))
    assert buffer.numpy().sum() == 16
    assert buffer.value.numpy().sum() == 16
    assert buffer.nbytes == 96


def test_wrong_size_is_a_bundle_error(attention: Path) -> None:
    engine = Engine.load(attention)
    ring = KVRing.for_engine(engine, 4)
    feeds = ring.feeds(0, 1) | {n: np.ones((1, 2, 1, 7)) for n in ("q", "key", "value")}
    with pytest.raises(BundleError, match=r"attention: the engine failed.*export"):
        engine.run(feeds, [ring])


def test_wrong_name_is_our_bug(attention: Path) -> None:
    engine = Engine.load(attention)
    ring = KVRing.for_engine(engine, 4)
    with pytest.raises(AssertionError, match=r"unknown \{'typo'\}"):
        engine.run({"typo": np.ones(1)}, [ring])


@pytest.mark.parametrize("content", [b"", b"not a graph", b"\x08\x0b\x3a\xff\xff\xff\xff\x0f"])
def test_unloadable_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"^bad\.onnx: .*export the bundle again"):
        Engine.load(tmp_path / "bad.onnx")
    with pytest.raises(BundleError, match=r"^absent\.onnx: "):
        Engine.load(tmp_path / "absent.onnx")


def test_provider_that_is_not_there(attention: Path) -> None:
    with pytest.raises(ConfigError, match=r"^CUDAExecutionProvider cannot be used here"):
        Engine.load(attention, providers=(CUDA, CPU))


def test_type_we_do_not_handle(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    infos = [helper.make_tensor_value_info(n, TensorProto.STRING, [1]) for n in "xy"]
    save(model(nodes, infos[:1], infos[1:]), tmp_path / "text.onnx")
    with pytest.raises(BundleError, match=r"text: x has type tensor\(string\)"):
        Engine.load(tmp_path / "text.onnx")


def test_exact_is_exact_and_fast_is_close(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(-127, 128, (64, 32)).astype(np.int8)
    scales = rng.uniform(0.001, 0.01, 32).astype("f4")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"], axis=1),
        helper.make_node("MatMul", ["x", "wd"], ["y"]),
    ]
    weights = [numpy_helper.from_array(codes, "w"), numpy_helper.from_array(scales, "s")]
    path = tmp_path / "linear.onnx"
    save(model(nodes, [floats("x", "S", 64)], [floats("y", "S", 32)], weights), path)
    x = rng.standard_normal((3, 64)).astype("f4")
    expected = x.astype("f8") @ (codes * scales.astype("f8"))
    exact = Engine.load(path, exact=True).run({"x": x})["y"]
    fast = Engine.load(path).run({"x": x})["y"]
    np.testing.assert_allclose(exact, expected, atol=1e-5)
    assert 1e-4 < np.abs(fast - expected).max() < 0.1 * np.abs(expected).max()


def test_no_memory_is_not_the_bundles_fault(attention: Path, tmp_path: Path) -> None:
    nodes = [helper.make_node("ConstantOfShape", ["shape"], ["y"])]
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [1])
    save(model(nodes, [shape], [floats("y", "n")]), tmp_path / "huge.onnx")
    engine = Engine.load(tmp_path / "huge.onnx")
    with pytest.raises(CapacityError, match=r"^huge: the engine failed, out of memory"):
        engine.run({"shape": np.array([1 << 52])})
    with pytest.raises(CapacityError, match=r"^no memory for state of \[1, 4503599627370496\]"):
        Buffer((1, 1 << 52), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ort, "InferenceSession", raise_no_memory)
        with pytest.raises(CapacityError, match=r"^attention\.onnx: .* out of memory"):
            Engine.load(attention)


def raise_no_memory(*_: object, **__: object) -> None:
    raise ort_state.RuntimeException("BFCArena: Failed to allocate memory for requested buffer")
