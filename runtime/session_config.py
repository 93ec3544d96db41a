"""Choices of one conversation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .errors import ConfigError
from .manifest import SamplingConfig
from .scheduler import SchedulerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionConfig:
    """None means the bundle's own."""

    reply: Literal["speech", "text"] = "speech"
    voice: str | None = None
    voice_window_frames: int | None = None  # see `FlowDecoder`; None: all of a reply, if affordable
    system: str | None = None  # text of the system turn
    sampling: SamplingConfig | None = None
    seed: int = 0  # same seed, same bundle, same machine: same reply
    capacity_rows: int | None = None  # remembered; the oldest exchanges are forgotten beyond it
    chunk_rows: int = 64  # most rows of one call of the language model
    threads: int = 1  # per engine
    exact: bool = False  # float products in quantized engines, for parity
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)

    def __post_init__(self) -> None:
        if self.reply not in ("speech", "text"):
            raise ConfigError(f"reply is {self.reply!r}, expected speech or text")
        if self.threads < 1 or self.seed < 0 or self.chunk_rows < 1:
            raise ConfigError(f"threads, chunk_rows must be > 0 and seed >= 0, got {self}")
