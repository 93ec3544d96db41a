"""What a duplex conversation tells about itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .reply import Reply


class Kind(Enum):
    """What an event says. The first eight are those of `turn_taking.Signal`."""

    SPEECH_START = "speech_start"
    PAUSE = "pause"
    RESUME = "resume"
    ENDPOINT = "endpoint"
    DROPPED = "dropped"  # `reason`: why there will be no reply to this turn
    INTERRUPTION = "interruption"
    BARGE_IN = "barge_in"
    FALSE_INTERRUPTION = "false_interruption"
    REPLY_BEGAN = "reply_began"  # its first sound may be played; of a written one: its first word
    REPLY_ENDED = "reply_ended"  # heard to its end, or `reply.ending` says why not


@dataclass(frozen=True, slots=True)
class Event:
    """Seconds are those of microphone sound, counted from the start."""

    kind: Kind
    at_s: float  # when it happened: when speech or silence began
    decided_s: float  # when it was certain
    reply: Reply | None = None  # the one that began, ended or was interrupted
    reason: str = ""


class Activity(Enum):
    """What the conversation is doing, for a person to see."""

    LISTENING = "listening"  # nobody speaks
    HEARING = "hearing"  # the user's turn
    THINKING = "thinking"  # the turn is over, nothing is heard yet
    SPEAKING = "speaking"
    INTERRUPTED = "interrupted"  # silent, until it is clear whether the user wants to speak
