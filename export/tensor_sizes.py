"""Sizes told by tensor shapes (contract K), and the check that a file holds what they imply."""

from __future__ import annotations

import re
from collections.abc import Mapping

from antiphon.runtime.errors import CorruptFile

from .reference.config import FlowConfig, HiftConfig
from .tensor_files import Shapes, TensorFile

HEAD_DIM = 64  # of every attention in the flow's estimator (contract E.1)
WEIGHT_NORM = ("parametrizations.weight.original0", "parametrizations.weight.original1")


def modern_weight_norm(names: Mapping[str, object]) -> dict[str, str]:
    """Old weight-norm spellings among `names` -> the parametrizations spelling (contract F.2)."""
    old = {"weight_g": WEIGHT_NORM[0], "weight_v": WEIGHT_NORM[1]}
    found = {name: name.rpartition(".") for name in names}
    return {name: f"{layer}.{old[leaf]}" for name, (layer, _, leaf) in found.items() if leaf in old}


def shape_of(file: TensorFile, name: str, rank: int) -> tuple[int, ...]:
    """The shape of one needed tensor. Raises CorruptFile when missing or of another rank."""
    if name not in file.shapes:
        raise CorruptFile(f"{file.path}: {name} is missing; is this the right file?")
    shape = file.shapes[name]
    if len(shape) != rank or 0 in shape:
        raise CorruptFile(f"{file.path}: {name} is {list(shape)}, expected {rank} dimensions")
    return shape


def _depth(file: TensorFile, prefix: str) -> int:
    """Layers `prefix`.0 … `prefix`.N-1; a gap in between shows in `check_shapes`."""
    pattern = re.compile(re.escape(prefix) + r"\.(\d{1,2})\.")  # others are extra tensors
    indices = [int(m[1]) for name in file.shapes if (m := pattern.match(name))]
    return 1 + max(indices, default=-1)


def flow_config(file: TensorFile, chunk: int) -> FlowConfig:
    """Sizes of the flow decoder; `chunk`, its training chunk in tokens, is in no tensor."""
    estimator = "decoder.estimator"
    vocab_size, width = shape_of(file, "input_embedding.weight", 2)
    mel_bins, speaker_dim = shape_of(file, "spk_embed_affine_layer.weight", 2)
    attention = f"{estimator}.down_blocks.0.1.0.attn1.to_q.weight"
    inner, channels = shape_of(file, attention, 2)
    if inner % HEAD_DIM:
        raise CorruptFile(
            f"{file.path}: {attention} has {inner} rows, expected a multiple of {HEAD_DIM}"
        )
    return FlowConfig(
        vocab_size=vocab_size,
        width=width,
        heads=shape_of(file, "encoder.encoders.0.self_attn.pos_bias_u", 2)[0],
        ffn=shape_of(file, "encoder.encoders.0.feed_forward.w_1.weight", 2)[0],
        blocks=_depth(file, "encoder.encoders"),
        up_blocks=_depth(file, "encoder.up_encoders"),
        speaker_dim=speaker_dim,
        mel_bins=mel_bins,
        channels=channels,
        transformer_heads=inner // HEAD_DIM,
        transformers=_depth(file, f"{estimator}.down_blocks.0.1"),
        mid_blocks=_depth(file, f"{estimator}.mid_blocks"),
        chunk_tokens=chunk,
        lookahead_tokens=shape_of(file, "encoder.pre_lookahead_layer.conv1.weight", 3)[2] - 1,
        mel_per_token=(shape_of(file, "encoder.up_layer.conv.weight", 3)[2] - 1) // 2,
    )


def hift_config(file: TensorFile) -> HiftConfig:
    """Sizes of the vocoder; names in the parametrizations spelling."""
    base, mel_bins, _ = shape_of(file, f"conv_pre.{WEIGHT_NORM[1]}", 3)
    return HiftConfig(
        mel_bins=mel_bins,
        base_channels=base,
        f0_channels=shape_of(file, "f0_predictor.classifier.weight", 2)[1],
        harmonics=shape_of(file, "m_source.l_linear.weight", 2)[1] - 1,
    )


def check_shapes(file: TensorFile, expected: Shapes, *, extras_allowed: bool) -> None:
    """Raise CorruptFile unless the file holds the expected tensors, as weights of their shapes."""
    missing = [name for name in expected if name not in file.shapes]
    if missing:
        raise CorruptFile(f"{file.path}: {_some(missing)} missing; is the checkpoint complete?")
    for name, shape in expected.items():
        if file.shapes[name] != shape:
            raise CorruptFile(
                f"{file.path}: {name} is {list(file.shapes[name])}, expected {list(shape)}"
            )
    file.check_types(expected)
    unknown = [name for name in file.shapes if name not in expected]
    if unknown and not extras_allowed:
        raise CorruptFile(
            f"{file.path}: {_some(unknown)} not expected; config.json and the file disagree"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:5])
    return shown if len(names) <= 5 else f"{shown} and {len(names) - 5} more"
