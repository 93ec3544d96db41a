"""What to run next: one pure function, driven by how much sound is left to play (design §6).

One inference thread repeats: look at the session, ask `next_job`, run that one job. A job is never
interrupted, so the longest job is also the longest wait of everything else, and cancelling takes
effect within one job.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .errors import ConfigError


class Job(Enum):
    """One unit of work."""

    HEAR = "hear"  # encode waiting user audio and prefill its rows
    THINK = "think"  # make one row of the reply
    SPEAK = "speak"  # one engine call on the way from codes to samples
    TIDY = "tidy"  # let a sleeping branch catch up, make room for the next turn
    WAIT = "wait"  # nothing to do until audio arrives or is played


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerConfig:
    """Marks of the two buffers between thinking, speaking and playing."""

    low_mark_ms: float = 480.0  # of sound left to play; below it speaking goes before thinking
    high_mark_codes: int = 25  # codes made but not spoken; at it thinking pauses

    def __post_init__(self) -> None:
        if self.low_mark_ms <= 0 or self.high_mark_codes <= 0:
            raise ConfigError(f"scheduler marks must be positive, got {self}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchedulerState:
    """All the scheduler may know. Every field is a fact of this instant."""

    audio_waiting: bool = False  # user audio, or the end of the user's turn, not yet worked in
    thinking: bool = False  # the reply has rows to come
    unspoken_codes: int = 0  # made, but not yet samples
    speakable: bool = False  # the voice has work it can do now
    playback_ms: float = 0.0  # sound left to play; 0 where nobody plays: then nothing is held back
    untidy: bool = False  # a branch owes rows, or room should be made


def next_job(state: SchedulerState, config: SchedulerConfig) -> Job:
    """User audio first; then sound that will soon be missing; then the reply; then housekeeping.

    The first sound is made at once, because nothing is playing; later sound when less than the
    low mark is left. Thinking pauses at the high mark unless the voice waits for more codes.
    """
    if state.audio_waiting:
        return Job.HEAR
    if state.speakable and state.playback_ms < config.low_mark_ms:
        return Job.SPEAK
    if state.thinking and not (state.speakable and state.unspoken_codes >= config.high_mark_codes):
        return Job.THINK
    return Job.TIDY if state.untidy else Job.WAIT
