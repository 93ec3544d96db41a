"""What times the speaking step runs the engines as a conversation does, and counts its reads."""

import itertools
import time

import numpy as np
import pytest

from antiphon.quant.error import sqnr_db
from antiphon.runtime.errors import ConfigError
from benchmarks import operators, speaking_path
from benchmarks.layout import SMALL, Sizes
from benchmarks.llama_cpp import LlamaCpp
from benchmarks.machine import MemoryReader, percentiles
from benchmarks.speaking_step import WARM, Plan, Times, measure

SIZES = Sizes(SMALL, shared_layers=2, modality_layers=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("engines")
    speaking_path.build(folder, SIZES, "fp32")
    return folder


def test_steps_after_going_back_repeat_themselves(folder):
    path = speaking_path.SpeakingPath(folder, SIZES)
    path.open(40, 8)
    first = [path.step().copy() for _ in range(8)]
    assert not np.allclose(first[0], first[1]), "every row sees one row more"
    path.back(8)
    again = [path.step().copy() for _ in range(8)]
    np.testing.assert_allclose(again, first, atol=1e-6)


def test_what_a_step_reads_is_counted(folder):
    path = speaking_path.SpeakingPath(folder, SIZES)
    path.open(600, 4)
    heads, head_dim = SMALL["lm"]["NKV"] // SMALL["lm"]["HD"], SMALL["lm"]["HD"]
    assert path.layers == 3
    assert path.cache_bytes == 600 * 3 * 2 * heads * head_dim * 4
    assert path.allocated == 1024, "storage doubles, as in a conversation"
    data = [(folder / f"{name}.data").stat().st_size for name in ("trunk", "speech_branch")]
    assert speaking_path.weight_bytes(folder) == sum(data)


def test_int8_caches_are_read_as_a_quarter_of_the_bytes(folder, tmp_path):
    speaking_path.build(tmp_path, SIZES, "fp32", kv="int8")
    logits = []
    for engines, kv, value_bytes in ((folder, "float32", 4), (tmp_path, "int8", 1)):
        path = speaking_path.SpeakingPath(engines, SIZES, kv=kv)
        path.open(40, 1)
        assert path.cache_bytes == 40 * 3 * 2 * SMALL["lm"]["NKV"] * value_bytes
        logits.append(path.step())
    assert 25 < sqnr_db(*logits) < 60, "the same keys and values, rounded"
    with pytest.raises(ConfigError, match="caches are float32, not int8; name another folder"):
        speaking_path.SpeakingPath(folder, SIZES, kv="int8")


def test_engines_that_are_there_are_not_made_again(folder):
    before = (folder / "trunk.onnx").stat().st_mtime_ns
    speaking_path.build(folder, SIZES, "fp32")
    assert (folder / "trunk.onnx").stat().st_mtime_ns == before


def test_the_published_depth_has_four_layers_of_speech():
    assert [
        speaking_path.sizes_of(36).shared_layers,
        speaking_path.sizes_of(36).modality_layers,
    ] == [
        32,
        4,
    ]
    assert speaking_path.sizes_of(4).shared_layers == 3


def test_rounds_are_counted_without_the_steps_that_warm_up():
    calls, times = itertools.count(), Times()
    times.add(lambda: (next(calls), time.sleep(0.002)), 3)
    times.add(lambda: next(calls), 3)
    assert next(calls) == 2 * (3 + WARM)
    assert len(times.cpu) == 6
    assert len(times.medians) == 2
    assert times.medians[0] >= 2


def test_a_result_states_the_floor_it_is_measured_against(folder):
    path = speaking_path.SpeakingPath(folder, SIZES)
    reader = MemoryReader(1 << 20)
    plan = Plan(engines=folder, llama=None, reader=reader, steps=3, rounds=2, cores=1)
    found = measure(plan, path, 1, 16)
    read = found["weight_bytes"] + found["cache_bytes"]
    assert found["floor_ms"] == pytest.approx(
        read / found["read_gb_per_s"] / 1e6, rel=0.05, abs=0.02
    )
    ms, typical_ms = found["ours"]["ms"], found["floor_ms"] / found["of_floor"]
    assert 0.9 * ms["min"] < typical_ms < 1.1 * ms["max"]


def test_operators_are_named(folder):
    found = operators.profile(folder / "trunk.onnx", 20)
    assert {"Attention", "MatMul", "TensorScatter"} <= found["ms"].keys()
    assert "rows: " in operators.line(found)


def test_a_folder_without_llama_cpp_is_named(tmp_path):
    with pytest.raises(ConfigError, match="no libllama and libggml there"):
        LlamaCpp(tmp_path, tmp_path / "model.gguf", 64)


def test_percentiles():
    assert percentiles([4, 1, 2, 3, 100]) == {"min": 1, "p50": 3, "p95": 80.8, "max": 100}


def test_a_model_file_has_every_tensor_once(tmp_path):
    gguf = pytest.importorskip("gguf", reason="pip install gguf")
    from antiphon.export.reference.config import LMConfig
    from benchmarks.gguf_file import write

    path = write(tmp_path / "tiny.gguf", LMConfig.from_json(SIZES.lm_config()))
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}
    assert len(tensors) == 3 + 11 * 3
    up = tensors["blk.2.ffn_up.weight"]
    assert up.tensor_type == gguf.GGMLQuantizationType.Q4_0
    assert list(up.shape) == [SMALL["lm"]["H"], SMALL["lm"]["I"]]
    values = gguf.quants.dequantize(up.data, up.tensor_type)
    assert 0.01 < values.std() < 0.03
    assert list(tmp_path.iterdir()) == [path]
