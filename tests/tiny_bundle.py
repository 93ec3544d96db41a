"""A whole bundle of a few kilobytes. Its engines declare the right inputs and outputs; only those
given in `engines` can run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, save
from tiny import model

from antiphon.runtime.engine_check import FIXED, needed
from antiphon.runtime.manifest import (
    ENGINES,
    FORMAT_VERSION,
    EncoderSizes,
    EngineEntry,
    FileEntry,
    FlowSizes,
    LMSizes,
    Manifest,
    Prompts,
    SamplingConfig,
    SpecialTokens,
    TableEntry,
    VocoderSizes,
)
from antiphon.runtime.onnx_file import read_facts

MEL, CODES = 4, 32
LM = LMSizes(
    text_vocab=96,
    audio_vocab=48,
    hidden_size=64,
    head_dim=16,
    kv_heads=2,
    shared_layers=2,
    modality_layers=1,
    rope_theta=1e6,
    context_rows=256,
)
ENCODER = EncoderSizes(mel_bins=MEL, code_count=CODES)
FLOW = FlowSizes(
    mel_bins=MEL,
    width=8,
    speaker_dim=6,
    steps=2,
    chunk_tokens=5,
    lookahead_tokens=3,
    mel_per_token=4,
)
VOCODER = VocoderSizes(mel_bins=MEL, harmonics=8, sample_rate_hz=24000, samples_per_frame=480)
LANGUAGE = ("trunk", "speech_branch", "text_branch")
TOKENS = SpecialTokens(
    endoftext=90, im_start=91, im_end=92, sosp=93, modality_pad=95, eosp=CODES, audio_pad=33
)


def file_entry(folder: Path, name: str) -> FileEntry:
    data = (folder / name).read_bytes()
    return FileEntry(file=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def engine_entry(folder: Path, name: str) -> EngineEntry:
    facts = read_facts(folder / f"{name}.onnx")
    has_data = (folder / f"{name}.data").exists()
    return EngineEntry(
        file=file_entry(folder, f"{name}.onnx"),
        data=(file_entry(folder, f"{name}.data"),) if has_data else (),
        inputs=tuple(facts.inputs),
        outputs=tuple(facts.outputs),
        scheme="fp32",
    )


def stand_ins() -> dict[str, ModelProto]:
    """Graphs without operators, with every input and output they should have."""
    sizes = SimpleNamespace(lm=LM, encoder=ENCODER, flow=FLOW, vocoder=VOCODER)
    return {name: model([], *_interface(name, sizes)) for name in ENGINES}


def _interface(name: str, sizes: SimpleNamespace) -> tuple[list[ValueInfoProto], ...]:
    layers = LM.shared_layers if name == "trunk" else LM.modality_layers
    heads, dim = (LM.kv_heads, LM.head_dim) if name in LANGUAGE else (1, 8)
    prefixes = {"flow_encoder": ("token_", "frame_"), "vocoder": ()}.get(name, ("",))
    kinds = [f"{prefix}{kind}" for prefix in prefixes for kind in ("key", "value")]
    caches = {f"{kind}_{i}": (1, heads, "C", dim) for i in range(layers) for kind in kinds}
    inputs, outputs = needed(name, sizes)
    inputs, outputs = inputs | caches, outputs | {f"{n}_out": s for n, s in caches.items()}
    return [_info(*i) for i in inputs.items()], [_info(*o) for o in outputs.items()]


def _info(name: str, shape: tuple[int | str, ...]) -> ValueInfoProto:
    whole = name in ("codes", "lookahead") or name.endswith(("_index", "_write", "phase_frame"))
    kind = TensorProto.INT64 if whole else TensorProto.FLOAT
    return helper.make_tensor_value_info(name, kind, [3 if n == FIXED else n for n in shape])


def write_bundle(
    folder: Path, *, tables: Mapping[str, np.ndarray] | None = None, name: str = "tiny"
) -> Path:
    """Write a bundle into `folder`, around the engines and the tokenizer.json already there."""
    folder.mkdir(exist_ok=True)
    (folder / "voices").mkdir()
    rng = np.random.default_rng(0)
    sizes = {"text": LM.text_vocab, "audio": LM.audio_vocab}
    rows = {n: rng.standard_normal((v, LM.hidden_size), dtype="f4") for n, v in sizes.items()}
    for channel, table in (rows | dict(tables or {})).items():
        np.save(folder / f"embed_{channel}.npy", table)
    np.save(folder / "flow_noise.npy", rng.standard_normal((MEL, 200), dtype="f4"))
    for engine, graph in stand_ins().items():
        if not (folder / f"{engine}.onnx").exists():
            save(graph, folder / f"{engine}.onnx")
    if not (folder / "tokenizer.json").exists():
        (folder / "tokenizer.json").write_text("{}")
    np.savez(
        folder / "voices" / "anna.npz",
        prompt_codes=np.arange(5),
        prompt_mel=np.zeros((MEL, 20), "f4"),
        embedding=np.ones(6, "f4"),
    )
    write_manifest(folder, manifest(folder, name).to_dict())
    return folder


def manifest(folder: Path, name: str = "tiny") -> Manifest:
    """The manifest of the files in `folder`."""
    return Manifest(
        format_version=FORMAT_VERSION,
        name=name,
        target="cpu",
        weights="fp32",
        lm=LM,
        encoder=ENCODER,
        flow=FLOW,
        vocoder=VOCODER,
        tokens=TOKENS,
        prompts=Prompts(spoken="Speak.", text="Write."),
        sampling=SamplingConfig(),
        log_mel_max=1.5,
        engines={n: engine_entry(folder, n) for n in ENGINES},
        text_embeddings=TableEntry(rows=file_entry(folder, "embed_text.npy")),
        audio_embeddings=TableEntry(rows=file_entry(folder, "embed_audio.npy")),
        tokenizer=file_entry(folder, "tokenizer.json"),
        noise=file_entry(folder, "flow_noise.npy"),
        voices={"anna": file_entry(folder, "voices/anna.npz")},
    )


def write_manifest(folder: Path, raw: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(raw, indent=1))
