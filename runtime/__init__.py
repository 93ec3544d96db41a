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
    from .conversation import Conversation
    from .duplex import DuplexSession
    from .duplex_config import DuplexConfig
    from .duplex_event import Activity, Event, Kind
    from .encoder import SpeechEncoder
    from .flow import FlowDecoder
    from .history import History
    from .lm import LanguageModel
    from .manifest import Manifest, SamplingConfig, SpecialTokens
    from .metrics import TurnMetrics
    from .playback import Playback
    from .prompt import PromptBuilder
    from .reply import Ending, Reply
    from .resample import Resampler
    from .sampling import Mode, Sampler
    from .scheduler import Job
    from .session import Session
    from .session_config import SessionConfig
    from .text import TextStream, TextTokenizer
    from .turn_taking import TurnConfig
    from .vad import VoiceDetector
    from .vocoder import Vocoder
    from .voice import SpeechDecoder

_HOME = {
    "Activity": "duplex_event",
    "AudioRing": "audio_ring",
    "Bundle": "bundle",
    "Conversation": "conversation",
    "DuplexConfig": "duplex_config",
    "DuplexSession": "duplex",
    "Ending": "reply",
    "Event": "duplex_event",
    "FlowDecoder": "flow",
    "History": "history",
    "Job": "scheduler",
    "Kind": "duplex_event",
    "LanguageModel": "lm",
    "Manifest": "manifest",
    "Mode": "sampling",
    "Playback": "playback",
    "PromptBuilder": "prompt",
    "Reply": "reply",
    "Resampler": "resample",
    "Sampler": "sampling",
    "SamplingConfig": "manifest",
    "Session": "session",
    "SessionConfig": "session_config",
    "SpecialTokens": "manifest",
    "SpeechDecoder": "voice",
    "SpeechEncoder": "encoder",
    "TextStream": "text",
    "TextTokenizer": "text",
    "TurnConfig": "turn_taking",
    "TurnMetrics": "metrics",
    "Vocoder": "vocoder",
    "VoiceDetector": "vad",
}

__all__ = [
    "Activity",
    "AntiphonError",
    "AudioDeviceError",
    "AudioError",
    "AudioRing",
    "Bundle",
    "BundleError",
    "CapacityError",
    "ConfigError",
    "Conversation",
    "CorruptFile",
    "DuplexConfig",
    "DuplexSession",
    "Ending",
    "Event",
    "FlowDecoder",
    "History",
    "Job",
    "Kind",
    "LanguageModel",
    "Manifest",
    "Mode",
    "Playback",
    "PromptBuilder",
    "Reply",
    "Resampler",
    "Sampler",
    "SamplingConfig",
    "Session",
    "SessionConfig",
    "SpecialTokens",
    "SpeechDecoder",
    "SpeechEncoder",
    "TextStream",
    "TextTokenizer",
    "TurnConfig",
    "TurnMetrics",
    "VersionMismatch",
    "Vocoder",
    "VoiceDetector",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return __all__
