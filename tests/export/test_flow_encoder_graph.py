"""The flow encoder's graph, chunk by chunk, equals the reference over the whole sequence."""

import numpy as np
import onnx
import pytest
import tiny_voice
import torch

from antiphon.export.flow_encoder_graph import build_flow_encoder, conv_matrix
from antiphon.quant.schemes import FP32, INT8
from antiphon.runtime.backend import Engine
from antiphon.runtime.kv_ring import KVRing

CAPACITY = 24  # tokens


def run(engine, codes, embedding, *, finalise):
    """mu [M, 4T] of the codes [T], or of all but the last three, and the speaker vector."""
    rings = {
        name: KVRing.for_engine(engine, rows, pinned=rows, initial=rows, prefix=f"{name}_")
        for name, rows in (("token", CAPACITY), ("frame", 4 * CAPACITY))
    }
    tails = {
        name: np.zeros(engine.inputs[name].shape, np.float32)
        for name in ("lookahead_tail", "up_tail")
    }
    end, mu = len(codes) if finalise else len(codes) - 3, []
    for start in range(0, end, 5):
        chunk, ahead = codes[start : start + 5][: end - start], codes[start + 5 : start + 8]
        gap = (0, 3 - len(ahead))
        feeds = {
            "codes": chunk[None],
            "lookahead": np.pad(ahead, gap)[None],
            "lookahead_gain": np.pad(np.ones(len(ahead)), gap)[None],
            "embedding": embedding[None],
            "token_index": np.array([start]),
            **tails,
        }
        for name, rate in (("token", 1), ("frame", 4)):
            feeds[f"{name}_mask"] = rings[name].mask(rate * start, rate * len(chunk), causal=False)
            feeds[f"{name}_write"] = np.array([rate * start])
        out = engine.run(feeds, list(rings.values()))
        for name, rate in (("token", 1), ("frame", 4)):
            rings[name].advance(rate * len(chunk))
        tails = {name: out[f"{name}_out"] for name in tails}
        mu.append(out["mu"][0])
    return np.concatenate(mu, axis=1), out["speaker"]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow_encoder") / "flow_encoder.onnx"
    return build_flow_encoder(tiny_voice.FLOW, tiny_voice.read(tiny_voice.flow()), FP32, path)


@pytest.mark.parametrize(("count", "finalise"), [(23, True), (20, True), (1, True), (18, False)])
def test_equals_the_reference(path, count, finalise):
    codes, embedding = torch.arange(count) * 7 % 40, torch.linspace(-1, 2, 192)
    mu, speaker = run(Engine.load(path), codes.numpy(), embedding.numpy(), finalise=finalise)
    expected = tiny_voice.flow().mu(codes[None], chunk=5, final=finalise)[0].numpy()
    np.testing.assert_allclose(mu, expected, atol=1e-5)
    expected = tiny_voice.flow().speaker(embedding[None]).numpy()
    np.testing.assert_allclose(speaker, expected, atol=1e-6)


def test_a_voice_without_an_embedding_is_the_bias_alone(path):
    _, speaker = run(Engine.load(path), np.zeros(5, int), np.zeros(192), finalise=True)
    bias = tiny_voice.flow().spk_embed_affine_layer.bias.numpy()
    np.testing.assert_allclose(speaker[0], bias, atol=1e-6)


def test_int8_is_close_and_smaller(path, tmp_path):
    model = tiny_voice.flow()
    small = build_flow_encoder(
        tiny_voice.FLOW, tiny_voice.read(model), INT8, tmp_path / "flow_encoder.onnx"
    )
    assert small.with_suffix(".data").stat().st_size < path.with_suffix(".data").stat().st_size / 2
    codes, embedding = np.arange(13) * 7 % 40, np.ones(192)
    exact, _ = run(Engine.load(path), codes, embedding, finalise=True)
    rough, _ = run(Engine.load(small, exact=True), codes, embedding, finalise=True)
    assert np.square(rough - exact).mean() < 1e-3 * np.square(exact).mean()


def test_is_valid_and_standard(path):
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    assert [entry.domain for entry in model.opset_import] == [""]


def test_convolution_as_a_matrix():
    weight = np.arange(12, dtype=np.float32).reshape(2, 3, 2)  # [O, C, K]
    rows = np.arange(6, dtype=np.float32)  # two rows of three channels
    expected = np.einsum("ock,kc->o", weight, rows.reshape(2, 3))
    np.testing.assert_array_equal(conv_matrix(weight) @ rows, expected)
