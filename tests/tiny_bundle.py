"""A whole bundle of a few kilobytes. Its engines declare the right inputs and outputs; only those
given in `engines` can run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, ValueInfoProto, helper, save
from tiny import floats, model

from antiphon.runtime.manifest import (
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


def _attention(layers: int) -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
    caches = [f"{kind}_{i}" for i in range(layers) for kind in ("key", "value")]
    shape = (1, LM.kv_heads, "C", LM.head_dim)
    half = LM.head_dim // 2
    inputs = [floats("cos", 1, "S", half), floats("sin", 1, "S", half), floats("mask", "S", "C")]
    inputs += [helper.make_tensor_value_info("write_index", TensorProto.INT64, [1])]
    return [*inputs, *(floats(n, *shape) for n in caches)], [
        floats(f"{n}_out", *shape) for n in caches
    ]


def stand_ins() -> dict[str, ModelProto]:
    """Graphs without operators."""
    rows = floats("hidden", 1, "S", LM.hidden_size)
    codes = helper.make_tensor_value_info("codes", TensorProto.INT64, [1, "n"])
    mel = [floats(n, 1, MEL, "F") for n in ("x", "mu")]
    ins, outs = _attention(LM.shared_layers)
    graphs = {"trunk": ([floats("embeddings", 1, "S", LM.hidden_size), *ins], [rows, *outs])}
    ins, outs = _attention(LM.modality_layers)
    for name, size in (("speech_branch", LM.audio_vocab), ("text_branch", LM.text_vocab)):
        graphs[name] = ([rows, *ins], [floats("logits", 1, size), *outs])
    graphs["encoder"] = ([floats("log_mel", 1, MEL, "T")], [codes])
    out = [floats("mu", 1, MEL, "F"), floats("speaker", 1, MEL)]
    graphs["flow_encoder"] = ([codes, floats("embedding", 1, 6)], out)
    graphs["flow_step"] = (mel, [floats("x_out", 1, MEL, "F")])
    ins = [floats("mel", 1, MEL, "T"), floats("noise", 1, "S", 9)]
    graphs["vocoder"] = (ins, [floats("pcm", 1, "S")])
    return {name: model([], *graph) for name, graph in graphs.items()}


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
        encoder=EncoderSizes(mel_bins=MEL, code_count=CODES),
        flow=FlowSizes(
            mel_bins=MEL,
            width=8,
            speaker_dim=6,
            steps=2,
            chunk_tokens=5,
            lookahead_tokens=3,
            mel_per_token=4,
        ),
        vocoder=VocoderSizes(
            mel_bins=MEL, harmonics=8, sample_rate_hz=24000, samples_per_frame=480
        ),
        tokens=TOKENS,
        prompts=Prompts(spoken="Speak.", text="Write."),
        sampling=SamplingConfig(),
        log_mel_max=1.5,
        engines={n: engine_entry(folder, n) for n in stand_ins()},
        text_embeddings=TableEntry(rows=file_entry(folder, "embed_text.npy")),
        audio_embeddings=TableEntry(rows=file_entry(folder, "embed_audio.npy")),
        tokenizer=file_entry(folder, "tokenizer.json"),
        noise=file_entry(folder, "flow_noise.npy"),
        voices={"anna": file_entry(folder, "voices/anna.npz")},
    )


def write_manifest(folder: Path, raw: dict[str, Any]) -> None:
    (folder / "manifest.json").write_text(json.dumps(raw, indent=1))
