"""A tiny flow decoder and vocoder with random weights, as reference modules and as engines."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch

from antiphon.export.flow_encoder_graph import build_flow_encoder
from antiphon.export.flow_step_graph import build_flow_step
from antiphon.export.reference.config import FlowConfig, HiftConfig
from antiphon.export.reference.flow import Flow, start_noise
from antiphon.export.reference.hift import Hift
from antiphon.export.vocoder_graph import build_vocoder
from antiphon.quant.schemes import FP32
from antiphon.runtime.backend import Engine
from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.manifest import FlowSizes, VocoderSizes

FLOW = FlowConfig(
    vocab_size=40,
    width=64,
    heads=1,
    ffn=128,
    blocks=2,
    up_blocks=2,
    channels=32,
    transformer_heads=1,
    transformers=1,
    mid_blocks=1,
    steps=4,
)
HIFT = HiftConfig(base_channels=32, f0_channels=16)
SIZES = FlowSizes(
    mel_bins=80,
    width=64,
    speaker_dim=192,
    steps=FLOW.steps,
    chunk_tokens=5,
    lookahead_tokens=3,
    mel_per_token=4,
)


@cache
def flow() -> Flow:
    """Random weights; biases and norms too, so that a forgotten one shows."""
    torch.set_num_threads(1)
    torch.manual_seed(4)
    model = Flow(FLOW).eval().requires_grad_(False)
    for parameter in model.parameters():
        if parameter.ndim == 1 or not parameter.any():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@cache
def hift() -> Hift:
    """Random weights, voiced: f0 between about 110 and 150 Hz."""
    torch.set_num_threads(1)
    torch.manual_seed(5)
    model = Hift(HIFT).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name.endswith("alpha"):
            parameter.mul_(1 + 0.5 * torch.rand_like(parameter))
    model.f0_predictor.classifier.weight.mul_(300)
    model.f0_predictor.classifier.bias.fill_(130)
    return model


def read(model: torch.nn.Module) -> Callable[[str], np.ndarray]:
    """Tensors by the file's names, weight norm fused: what `Checkpoint.read` and `.fused` give."""
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}

    def tensor(name: str) -> np.ndarray:
        if name in state:
            return state[name]
        stem = name.removesuffix("weight") + "parametrizations.weight.original"
        g, v = state[f"{stem}0"], state[f"{stem}1"]
        return g * v / np.sqrt(np.square(v).sum(axis=(1, 2), keepdims=True))

    return tensor


def voice(prompt: int) -> Voice:
    """A voice whose prompt has that many codes."""
    rng = np.random.default_rng(prompt)
    return Voice(
        prompt_codes=rng.integers(0, FLOW.vocab_size, prompt),
        prompt_mel=rng.standard_normal((80, 4 * prompt), dtype=np.float32),
        embedding=rng.standard_normal(192, dtype=np.float32),
    )


def bundle(folder: Path, *, noise_frames: int = 400) -> SimpleNamespace:
    """What the voice needs of a bundle; voice names are prompt lengths."""
    paths = {
        "flow_encoder": build_flow_encoder(FLOW, read(flow()), FP32, folder / "flow_encoder.onnx"),
        "flow_step": build_flow_step(FLOW, read(flow()), FP32, folder / "flow_step.onnx"),
        "vocoder": build_vocoder(HIFT, read(hift()), folder / "vocoder.onnx"),
    }

    @cache
    def engine(name: str, *, threads: int, exact: bool) -> Engine:
        return Engine.load(paths[name], threads=threads, exact=True)

    vocoder = VocoderSizes(mel_bins=80, harmonics=8, sample_rate_hz=24000, samples_per_frame=480)
    return SimpleNamespace(
        paths=paths,
        engine=engine,
        voice=lambda name: voice(int(name)),
        noise=start_noise(frames=noise_frames).numpy(),
        manifest=SimpleNamespace(flow=SIZES, vocoder=vocoder, tokens=SimpleNamespace(eosp=40)),
    )
