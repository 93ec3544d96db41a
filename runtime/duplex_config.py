"""Choices of one conversation held through microphone and loudspeaker."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from .lm import capacity_of
from .manifest import Manifest
from .session_config import SessionConfig
from .turn_taking import TurnConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class DuplexConfig:
    """The session's choices, and those of turn taking."""

    session: SessionConfig = field(default_factory=SessionConfig)
    turns: TurnConfig = field(default_factory=TurnConfig)
    speculate: bool = True  # prepare the reply at a pause
    push_to_talk: bool = False  # `press` and `release` decide, not the voice detector

    def turns_for(self, manifest: Manifest) -> TurnConfig:
        """Turn taking in which no turn takes more than half of what the model remembers."""
        lm, encoder = manifest.lm, manifest.encoder
        rows = capacity_of(lm, self.session.capacity_rows)
        longest_ms = 1000 * rows / 2 * encoder.samples_per_code / encoder.sample_rate_hz
        most_ms = max(2 * self.turns.endpoint_ms, min(self.turns.most_turn_ms, longest_ms))
        return replace(self.turns, most_turn_ms=most_ms)
