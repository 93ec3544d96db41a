"""A checkpoint folder becomes a bundle folder (design §3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from antiphon.quant.schemes import FP16, FP32, INT8, SCHEMES, Scheme
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.manifest import ENGINES, FORMAT_VERSION, FileEntry, Manifest, TableEntry

from .checkpoint import Checkpoint
from .encoder_graph import build_encoder
from .flow_encoder_graph import build_flow_encoder
from .flow_step_graph import build_flow_step
from .lm_graph import build_branch, build_trunk
from .manifest_facts import model_facts
from .parity import measure
from .reference.flow import NOISE_FRAMES, Flow, start_noise
from .reference.hift import Hift
from .reference.lm import MossSpeechLM
from .reference.speech_tokenizer import SpeechTokenizer
from .vocoder_graph import build_vocoder
from .writer import engine_entry, file_entry, new_bundle, save_array, save_manifest

TARGETS = ("cpu",)
LANGUAGE = ("trunk", "speech_branch", "text_branch")

Progress = Callable[[str, int, int], None]  # what comes next, its number, how many there are


def export(
    checkpoint: Path,
    out: Path,
    *,
    weights: str = "int8",
    target: str = "cpu",
    noise_frames: int = NOISE_FRAMES,
    progress: Progress | None = None,
) -> Manifest:
    """Write the checkpoint folder as the bundle folder `out`, whole or not at all.

    weights       name of a scheme; four bits hold for the LM, its heads and the codec keep eight
    noise_frames  start noise to store: the longest prompt and reply, in frames of 20 ms
    Raises ConfigError, BundleError, CapacityError or CorruptFile, naming the way out.
    """
    for what, value, known in (("weights", weights, SCHEMES), ("target", target, TARGETS)):
        if value not in known:
            raise ConfigError(f"{what} {value!r}: choose one of {', '.join(known)}")
    if not 0 < noise_frames <= NOISE_FRAMES:
        raise ConfigError(f"noise_frames is {noise_frames}, expected 1 to {NOISE_FRAMES}")
    source, kept = Checkpoint.open(checkpoint), SCHEMES[weights]
    if not source.voices():
        raise ConfigError(
            f"{checkpoint / 'voices'}: no voice; put a NAME.npz with prompt_codes, prompt_mel and "
            "embedding there"
        )
    with new_bundle(out, bundle_bytes(source, kept)) as folder:
        work = _Export(source, folder, kept, progress or _silent)
        schemes = work.engines()
        work.tables(noise_frames)
        manifest = work.manifest(out.absolute().name, target, schemes)
        save_manifest(manifest, folder)
    return manifest


def bundle_bytes(source: Checkpoint, kept: Scheme) -> int:
    """Upper bound of a bundle's size on disk."""
    with torch.device("meta"):
        lm = MossSpeechLM(source.lm_config)
        codec = (
            SpeechTokenizer(source.tokenizer_config),
            Flow(source.flow_config),
            Hift(source.hift_config),
        )
    tables = sum(t.numel() for name, t in lm.state_dict().items() if "embed" in name)
    heads = tables  # as many values
    layers = sum(t.numel() for t in lm.state_dict().values()) - tables - heads
    coded = (layers * kept.bits + heads * max(kept.bits, INT8.bits)) / 8
    others = sum(t.numel() for module in codec for t in module.state_dict().values())
    noise = source.flow_config.mel_bins * NOISE_FRAMES
    return int(1.2 * coded) + 2 * tables + 4 * (others + noise)


def _silent(what: str, number: int, count: int) -> None:
    pass


class _Export:
    """The steps of one export; each leaves finished files in the folder."""

    def __init__(self, source: Checkpoint, folder: Path, kept: Scheme, progress: Progress) -> None:
        self.source, self.folder, self.kept, self.progress = source, folder, kept, progress
        self.codec = kept if kept.bits >= INT8.bits else INT8
        self.done = 0

    def _begin(self, what: str) -> None:
        self.progress(what, self.done, len(ENGINES) + 2)
        self.done += 1

    def engines(self) -> dict[str, str]:
        """Write every graph; returns the scheme of each."""
        s, kept, codec = self.source, self.kept, self.codec
        lm, tokenizer, flow = (
            partial(s.read, "lm"),
            partial(s.read, "tokenizer"),
            partial(s.read, "flow"),
        )
        jobs: dict[str, Callable[[Path], object]] = {
            "encoder": lambda path: build_encoder(s.tokenizer_config, tokenizer, codec, path),
            "trunk": lambda path: build_trunk(s.lm_config, lm, kept, path),
            "speech_branch": lambda path: build_branch(s.lm_config, "audio", lm, kept, path),
            "text_branch": lambda path: build_branch(s.lm_config, "text", lm, kept, path),
            "flow_encoder": lambda path: build_flow_encoder(s.flow_config, flow, codec, path),
            "flow_step": lambda path: build_flow_step(s.flow_config, flow, codec, path),
            "vocoder": lambda path: build_vocoder(s.hift_config, self._vocoder_weight, path),
        }
        for name in ENGINES:
            self._begin(name)
            jobs[name](self.folder / f"{name}.onnx")
        schemes = {name: kept if name in LANGUAGE else codec for name in ENGINES}
        schemes["vocoder"] = FP16 if codec.quantized else codec  # convolutions: no integer kernels
        return {name: kept.name for name, kept in schemes.items()}

    def _vocoder_weight(self, name: str) -> NDArray[np.float32]:
        """A tensor of the vocoder; its convolutions as float16 unless all is float32."""
        value = self.source.fused(name)
        if value.ndim < 3 or self.codec is FP32:
            return value
        return value.astype(np.float16).astype(np.float32)

    def tables(self, noise_frames: int) -> None:
        """Write embeddings, noise, voices and the text tokenizer."""
        self._begin("tables")
        s, folder = self.source, self.folder
        for file, name in (("embed_text", "embed_tokens"), ("embed_audio", "audio_embed")):
            rows = s.read("lm", f"model.{name}.weight")
            save_array(folder / f"{file}.npy", rows.astype(np.float16))
        noise = start_noise(s.flow_config.mel_bins, noise_frames)
        save_array(folder / "flow_noise.npy", noise.numpy())
        (folder / "voices").mkdir()
        for name, voice in s.voices().items():
            np.savez(folder / "voices" / f"{name}.npz", allow_pickle=False, **voice)
        shutil.copyfile(s.tokenizer_json, folder / "tokenizer.json")

    def manifest(self, name: str, target: str, schemes: dict[str, str]) -> Manifest:
        """Measure the engines, hash the files, and state it all."""
        self._begin("parity")
        folder = self.folder
        parity = measure(self.source, folder)
        return Manifest(
            format_version=FORMAT_VERSION,
            name=name,
            target=target,
            weights=self.kept.name,
            **model_facts(self.source),
            engines={
                engine: engine_entry(
                    folder / f"{engine}.onnx", folder, kept, parity.get(engine, {})
                )
                for engine, kept in schemes.items()
            },
            text_embeddings=TableEntry(rows=self._file("embed_text.npy")),
            audio_embeddings=TableEntry(rows=self._file("embed_audio.npy")),
            tokenizer=self._file("tokenizer.json"),
            noise=self._file("flow_noise.npy"),
            voices={voice: self._file(f"voices/{voice}.npz") for voice in self.source.voices()},
        )

    def _file(self, name: str) -> FileEntry:
        return file_entry(self.folder / name, self.folder)
