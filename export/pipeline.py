"""A checkpoint folder becomes a bundle folder (design §3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from antiphon.quant.schemes import FP16, FP32, INT8, SCHEMES, Scheme
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import ConfigError, CorruptFile
from antiphon.runtime.manifest import ENGINES, FORMAT_VERSION, FileEntry, Manifest, TableEntry

from .budget import available_bytes, bundle_bytes, parity_bytes
from .checkpoint import Checkpoint
from .encoder_graph import build_encoder
from .flow_encoder_graph import build_flow_encoder
from .flow_step_graph import build_flow_step
from .lm_graph import build_branch, build_trunk
from .manifest_facts import model_facts
from .parity import VOICE, Measures, measure, prompted
from .reference.flow import NOISE_FRAMES, start_noise
from .vocoder_graph import build_vocoder
from .writer import engine_entry, file_entry, new_bundle, save_array, save_manifest

TARGETS = ("cpu",)
VOICES = "voices"  # a folder, of the checkpoint and of the bundle
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
    draft = _draft(source, name=out.absolute().name, target=target, weights=weights)
    with new_bundle(out, bundle_bytes(source, kept)) as folder:
        work = _Export(source, folder, kept, progress or _silent)
        schemes = work.engines()
        work.tables(noise_frames)
        manifest = work.manifest(draft, schemes)
        save_manifest(manifest, folder)
        Bundle.open(folder, verify=False)  # what takes the place of `out` is known to open
    return manifest


def _draft(source: Checkpoint, **stated: str) -> Manifest:
    """The manifest without its files: what cannot be stated is found out before hours of work."""
    facts, absent = model_facts(source), _absent("absent")
    if not source.voices:
        raise ConfigError(
            f"{source.directory / VOICES}: no voice; put a NAME.npz with prompt_codes, prompt_mel "
            "and embedding there"
        )
    voices = {}
    for name in source.voices:
        try:
            voices[name] = _absent(f"{VOICES}/{name}.npz")
        except CorruptFile as error:
            raise ConfigError(
                f"{source.directory / VOICES}: {name!r} cannot name a voice; rename the file to at "
                "most 90 letters, digits, dots, hyphens and underscores, a letter or digit first"
            ) from error
    return Manifest(
        format_version=FORMAT_VERSION,
        **stated,
        **facts,
        engines={},
        text_embeddings=TableEntry(rows=absent),
        audio_embeddings=TableEntry(rows=absent),
        tokenizer=absent,
        noise=absent,
        voices=voices,
    )


def _absent(name: str) -> FileEntry:
    """Stands for a file that is not written yet."""
    return FileEntry(file=name, sha256="0" * 64, size_bytes=0)


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
        (folder / VOICES).mkdir()
        for name, voice in s.voices.items():
            np.savez(folder / VOICES / f"{name}.npz", allow_pickle=False, **asdict(voice))
        shutil.copyfile(s.tokenizer_json, folder / "tokenizer.json")

    def manifest(self, draft: Manifest, schemes: dict[str, str]) -> Manifest:
        """Measure the engines, hash the files, and state it all."""
        folder, parity = self.folder, self._parity(schemes)
        return replace(
            draft,
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
            voices={voice: self._file(f"{VOICES}/{voice}.npz") for voice in self.source.voices},
        )

    def _parity(self, schemes: dict[str, str]) -> dict[str, Measures]:
        """Measure the engines that can be measured here; progress says which cannot, and why."""
        left_out = {}
        if prompted(self.source) is None:
            left_out = dict.fromkeys(VOICE, "no voice has a prompt")
        free = available_bytes()
        for name, needed in parity_bytes(self.source, schemes).items():
            if free is not None and needed > free:
                left_out[name] = f"takes {needed / 1e9:.1f} GB of memory, {free / 1e9:.1f} are free"
        self._begin("; ".join(["parity", *(f"not {n}: {why}" for n, why in left_out.items())]))
        return measure(self.source, self.folder, [n for n in schemes if n not in left_out])

    def _file(self, name: str) -> FileEntry:
        return file_entry(self.folder / name, self.folder)
