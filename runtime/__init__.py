"""Bundle to conversation: engines, caches, turn taking, the scheduler and the session.

The public API is `__all__`. Names are loaded when first used: importing this package loads
neither numpy nor an engine library, so that commands can answer at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    AntiphonError,
    AudioDeviceError,
    AudioError,
    BundleError,
    CapacityError,
    ConfigError,
    CorruptFile,
    VersionMismatch,
)

if TYPE_CHECKING:
    from .audio_ring import AudioRing
    from .bundle import Bundle
    from .encoder import SpeechEncoder
    from .flow import FlowDecoder
    from .lm import LanguageModel
    from .manifest import Manifest, SamplingConfig, SpecialTokens
    from .prompt import PromptBuilder
    from .resample import Resampler
    from .sampling import History, Mode, Sampler
    from .text import TextStream, TextTokenizer
    from .vocoder import Vocoder
    from .voice import SpeechDecoder

_HOME = {
    "AudioRing": "audio_ring",
    "Bundle": "bundle",
    "FlowDecoder": "flow",
    "History": "sampling",
    "LanguageModel": "lm",
    "Manifest": "manifest",
    "Mode": "sampling",
    "PromptBuilder": "prompt",
    "Resampler": "resample",
    "Sampler": "sampling",
    "SamplingConfig": "manifest",
    "SpecialTokens": "manifest",
    "SpeechDecoder": "voice",
    "SpeechEncoder": "encoder",
    "TextStream": "text",
    "TextTokenizer": "text",
    "Vocoder": "vocoder",
}

__all__ = [
    "AntiphonError",
    "AudioDeviceError",
    "AudioError",
    "AudioRing",
    "Bundle",
    "BundleError",
    "CapacityError",
    "ConfigError",
    "CorruptFile",
    "FlowDecoder",
    "History",
    "LanguageModel",
    "Manifest",
    "Mode",
    "PromptBuilder",
    "Resampler",
    "Sampler",
    "SamplingConfig",
    "SpecialTokens",
    "SpeechDecoder",
    "SpeechEncoder",
    "TextStream",
    "TextTokenizer",
    "VersionMismatch",
    "Vocoder",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
