"""One Euler step, chunk by chunk, equals the reference estimator over the whole sequence."""

import numpy as np
import onnx
import pytest
import tiny_voice
import torch

from antiphon.export.flow_step_graph import build_flow_step, stages, tail_widths
from antiphon.export.reference.config import FlowConfig
from antiphon.quant.schemes import FP32, INT8
from antiphon.runtime.backend import Engine
from antiphon.runtime.kv_ring import KVRing

FRAMES, T, DT = 52, 0.3, 0.1  # two chunks and a short one


def inputs():
    generator = torch.Generator().manual_seed(1)
    frames = {n: torch.randn(1, 80, FRAMES, generator=generator) for n in ("x", "mu", "cond")}
    return frames, torch.randn(1, 80, generator=generator)


def expected():
    model, (frames, speaker) = tiny_voice.flow(), inputs()
    both = [torch.cat((v, torch.zeros_like(v))) for v in (frames["mu"], speaker, frames["cond"])]
    bias = model.attention_bias(FRAMES, 5, torch.device("cpu"))
    x = frames["x"]
    v = model.velocity(x.expand(2, -1, -1), torch.full((2,), T), tuple(both), bias)
    return (x + DT * (1.7 * v[:1] - 0.7 * v[1:])).numpy()


def run(engine):
    frames, speaker = inputs()
    ring = KVRing.for_engine(engine, 60, pinned=60, initial=60)
    tails, made = np.zeros(engine.inputs["tails"].shape, np.float32), []
    for start in range(0, FRAMES, 20):
        part = {name: value[:, :, start : start + 20].numpy() for name, value in frames.items()}
        rows = part["x"].shape[2]
        times = {"t": np.array([T]), "dt": np.array([DT])}
        feeds = part | times | {"speaker": speaker.numpy(), "tails": tails}
        out = engine.run(feeds | ring.feeds(start, rows, causal=False), [ring])
        ring.advance(rows)
        tails = out["tails_out"]
        made.append(out["x_out"])
    return np.concatenate(made, axis=2)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("flow_step") / "flow_step.onnx"
    return build_flow_step(tiny_voice.FLOW, tiny_voice.read(tiny_voice.flow()), FP32, path)


def test_equals_the_reference(path):
    np.testing.assert_allclose(run(Engine.load(path)), expected(), atol=1e-5)


def test_int8_is_close_and_smaller(path, tmp_path):
    model = tiny_voice.flow()
    small = build_flow_step(
        tiny_voice.FLOW, tiny_voice.read(model), INT8, tmp_path / "flow_step.onnx"
    )
    assert small.with_suffix(".data").stat().st_size < path.with_suffix(".data").stat().st_size / 2
    moved = run(Engine.load(small, exact=True)) - inputs()[0]["x"].numpy()
    error = moved + inputs()[0]["x"].numpy() - expected()
    assert np.square(error).mean() < 1e-3 * np.square(moved).mean()


def test_is_valid_and_standard(path):
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    assert [entry.domain for entry in model.opset_import] == [""]


def test_the_real_model_has_these_stages_and_tails():
    assert len(stages(FlowConfig())) == 14
    widths = tail_widths(FlowConfig())
    assert len(widths) == 31
    assert widths[0] == 320
    assert widths[-4:] == [512, 256, 256, 256]
