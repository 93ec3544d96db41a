"""The encoder engine equals the reference tokenizer, streamed in any pieces."""

import itertools

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.export.encoder_graph import build_encoder
from antiphon.export.flow_encoder_graph import conv_matrix
from antiphon.export.reference.config import TokenizerConfig
from antiphon.export.reference.speech_tokenizer import SpeechTokenizer
from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.schemes import FP32, INT8
from antiphon.runtime.backend import Engine
from antiphon.runtime.kv_ring import KVRing

CONFIG = TokenizerConfig(
    d_model=128,
    encoder_attention_heads=2,
    encoder_ffn_dim=128,
    quantize_position=2,
    quantize_vocab_size=32,
    num_mel_bins=80,
    max_source_positions=96,
)
CODES = 24


@pytest.fixture(scope="module")
def reference():
    torch.set_num_threads(1)
    torch.manual_seed(3)
    model = SpeechTokenizer(CONFIG).eval().requires_grad_(False)
    model.encoder.codebook.weight.mul_(0.3)  # the size of the pooled frames
    return model


@pytest.fixture(scope="module")
def log_mel():
    return torch.randn(1, 80, 8 * CODES, generator=torch.Generator().manual_seed(4))


def export(model, scheme, path):
    """Engine with the pooled frames as one more output: codes alone are a coarse measure."""
    weights = {name: value.numpy() for name, value in model.state_dict().items()}
    build_encoder(CONFIG, weights.__getitem__, scheme, path)
    onnx.checker.check_model(str(path), full_check=True)
    graph = onnx.load(path, load_external_data=False)
    (pooled,) = [node.output[0] for node in graph.graph.node if node.op_type == "ReduceMean"]
    info = onnx.helper.make_tensor_value_info(pooled, onnx.TensorProto.FLOAT, [1, "n", 128])
    graph.graph.output.append(info)
    path.write_bytes(graph.SerializeToString())
    return Engine.load(path, exact=True), pooled


@pytest.fixture(scope="module")
def engine(reference, tmp_path_factory):
    return export(reference, FP32, tmp_path_factory.mktemp("encoder") / "encoder.onnx")


def stream(exported, log_mel, cuts):
    """Feed log-mel in calls of the given numbers of codes; returns codes and pooled frames."""
    engine, pooled = exported
    ring = KVRing.for_engine(engine, 4 * CODES, pinned=4 * CODES, initial=16)
    tails = {
        "conv1_tail": np.zeros((1, 80, 2), np.float32),
        "conv2_tail": np.zeros((1, 128, 2), np.float32),
    }
    codes, frames, start = [], [], 0
    for n in cuts:
        feeds = {"log_mel": log_mel[:, :, 8 * start : 8 * (start + n)].numpy(), **tails}
        feeds["frame_index"] = np.array([4 * start])
        outputs = engine.run(feeds | ring.feeds(4 * start, 4 * n), [ring])
        tails = {name: outputs[f"{name}_out"] for name in tails}
        ring.advance(4 * n)
        codes.append(outputs["codes"])
        frames.append(outputs[pooled])
        start += n
    return np.concatenate(codes, 1), np.concatenate(frames, 1)


def pieces(cuts):
    edges = [0, *sorted(set(cuts)), CODES]
    return [b - a for a, b in itertools.pairwise(edges)]


@settings(max_examples=20)
@given(cuts=st.lists(st.integers(1, CODES - 1), max_size=12).map(pieces))
def test_streaming_equals_offline_for_any_cut(engine, reference, log_mel, cuts):
    exact = reference.encoder(log_mel)
    codes, frames = stream(engine, log_mel, cuts)
    np.testing.assert_allclose(frames, exact.numpy(), atol=1e-5)
    np.testing.assert_array_equal(codes, reference.encoder.quantize(exact).numpy())
    assert len(np.unique(codes)) > 8  # or the comparison would mean nothing


def test_int8_engine_equals_the_reference_with_rounded_weights(reference, log_mel, tmp_path):
    rounded = SpeechTokenizer(CONFIG).eval().requires_grad_(False)
    state = reference.state_dict()
    for name, weight in state.items():
        if weight.ndim == 3:  # a convolution, as the matrix it is stored as
            rows = conv_matrix(weight.numpy())
            rows = dequantize(quantize(rows, INT8.fit(rows.shape[1])))
            rows = rows.reshape(128, 3, -1).transpose(0, 2, 1)
            state[name] = torch.from_numpy(rows.copy())
        elif name.endswith(("proj.weight", "fc1.weight", "fc2.weight")):
            state[name] = torch.from_numpy(dequantize(quantize(weight.numpy(), INT8)))
        elif "positions" in name:
            state[name] = weight.half().float()
    rounded.load_state_dict(state)
    codes, frames = stream(export(reference, INT8, tmp_path / "e.onnx"), log_mel, [1, 20, 3])
    exact = rounded.encoder(log_mel)
    np.testing.assert_allclose(frames, exact.numpy(), atol=1e-4)
    np.testing.assert_array_equal(codes, rounded.encoder.quantize(exact).numpy())


def test_a_codebook_is_stored_small_only_if_that_is_exact(reference, tmp_path):
    sizes = {}
    for exact in (True, False):
        model = SpeechTokenizer(CONFIG).eval().requires_grad_(False)
        model.load_state_dict(reference.state_dict())
        if exact:
            model.encoder.codebook.weight.copy_(model.encoder.codebook.weight.half())
        path = tmp_path / f"{exact}.onnx"
        export(model, FP32, path)
        sizes[exact] = path.with_suffix(".data").stat().st_size
    assert sizes[False] - sizes[True] == 2 * 32 * 128


def test_the_lowest_index_wins_a_tie(reference, log_mel, tmp_path):
    twin = SpeechTokenizer(CONFIG).eval().requires_grad_(False)
    twin.load_state_dict(reference.state_dict())
    rows = twin.encoder.codebook.weight
    rows[16:] = rows[:16].clone()
    codes, _ = stream(export(twin, FP32, tmp_path / "e.onnx"), log_mel, [CODES])
    assert codes.max() < 16


def test_interface(engine):
    exported, pooled = engine
    caches = [f"{kind}_{i}" for i in range(2) for kind in ("key", "value")]
    state = ["conv1_tail", "conv2_tail", *caches]
    steering = ["log_mel", "frame_index", "mask", "write_index"]
    assert sorted(exported.inputs) == sorted([*steering, *state])
    assert sorted(exported.outputs) == sorted(["codes", pooled, *(f"{s}_out" for s in state)])
    assert exported.outputs["codes"].dtype == "int64"
    assert exported.inputs["log_mel"].shape == (1, 80, "8*n")
    assert exported.inputs["mask"].shape == ("4*n", "C")
    assert exported.inputs["value_1"].shape == (1, 2, "C", 64)
