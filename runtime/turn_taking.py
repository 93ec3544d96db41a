"""Whose turn is it? A state machine that is told, window by window, whether somebody speaks.

It knows no sound, no clock and no model: probabilities go in, signals come out. What has to be
done about a signal is the business of `duplex.py`.

                    speech                  short silence                 long silence
    QUIET ---------------------> SPEECH <------------------> PAUSE ------------------> QUIET
      |       SPEECH_START          ^      PAUSE / RESUME             ENDPOINT
      |                             |
      | speech over a reply         | it goes on: BARGE_IN
      '----------------------> INTERRUPTION -------------------> QUIET
              INTERRUPTION                    it was short: FALSE_INTERRUPTION
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import Enum

from .errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnConfig:
    """When the user's turn starts and ends, in milliseconds of what the detector calls speech.

    The detector finds speech 30 ms after it starts (median) and silence 80 ms after it ends.

    Of a pause the model hears `pause_ms` at the beginning and `rejoin_ms` at the end, however long
    it was: longer pauses say nothing that the words do not, and a model that was trained on
    sentences without pauses misunderstands them.
    """

    speech_threshold: float = 0.5  # probability; speech begins at or above it
    silence_threshold: float = 0.35  # probability; speech goes on at or above it
    onset_ms: float = 64.0  # of speech before anything is made of it
    preroll_ms: float = 150.0  # before the onset that belong to the turn
    rejoin_ms: float = 150.0  # before speech that goes on after a pause that belong to it
    pause_ms: float = 200.0  # of silence after which a reply is prepared
    endpoint_ms: float = 900.0  # of silence that ends the turn
    least_speech_ms: float = 160.0  # in a turn; with less it was a noise
    most_turn_ms: float = 30_000.0  # a longer turn is ended; the encoder starts anew there
    interruption_ms: float = 500.0  # of speech over a reply that end it; "mhm" is shorter
    false_interruption_ms: float = 400.0  # of silence after less speech, and the reply goes on
    take_back_ms: float = 250.0  # of a reply; who speaks sooner does not react to it but goes on

    def __post_init__(self) -> None:
        if not 0 < self.silence_threshold <= self.speech_threshold <= 1:
            raise ConfigError(f"need 0 < silence_threshold <= speech_threshold <= 1, got {self}")
        if not self.pause_ms <= self.endpoint_ms < self.most_turn_ms:
            raise ConfigError(f"need pause_ms <= endpoint_ms < most_turn_ms, got {self}")
        if not self.onset_ms <= min(self.interruption_ms, self.least_speech_ms):
            raise ConfigError(
                f"onset_ms may not exceed interruption_ms or least_speech_ms, got {self}"
            )
        if min(getattr(self, f.name) for f in fields(self) if f.name != "take_back_ms") <= 0:
            raise ConfigError(f"all but take_back_ms must be positive, got {self}")


class Phase(Enum):
    """Where the user's turn stands."""

    QUIET = "quiet"  # nobody but perhaps the model speaks
    SPEECH = "speech"  # the user's turn is being given
    PAUSE = "pause"  # so it is, but the user has paused
    INTERRUPTION = "interruption"  # a sound over the reply: still to be seen what it is


class Signal(Enum):
    """What has just been understood."""

    SPEECH_START = "speech_start"  # a turn of the user has begun
    PAUSE = "pause"  # it may be over
    RESUME = "resume"  # it was not
    ENDPOINT = "endpoint"  # it is over
    DROPPED = "dropped"  # it was too short to be speech
    INTERRUPTION = "interruption"  # somebody or something is heard over the reply
    BARGE_IN = "barge_in"  # the user is speaking
    FALSE_INTERRUPTION = "false_interruption"  # it was a cough, or "mhm"


@dataclass(frozen=True, slots=True)
class Step:
    """A signal, and how many windows ago that began of which it speaks: speech, or silence."""

    signal: Signal
    since: int


class TurnTaker:
    """Feed it every window of `window_ms`; between windows it may be asked for its `phase`."""

    def __init__(self, config: TurnConfig, window_ms: float) -> None:
        self.config, self._window_ms = config, window_ms
        self.reset()

    def reset(self) -> None:
        """Nobody has said anything."""
        self.phase = Phase.QUIET
        self._speaking = False  # in this window
        self._run = 0  # windows of speech up to now without a break
        self._voiced = 0  # windows of speech in this turn or interruption
        self._silent = 0  # windows of silence since the last speech that was long enough
        self._length = 0  # windows of this turn
        self._deaf = False  # until there is silence: the turn was ended while the user spoke

    def push(self, probability: float, *, replying: bool) -> Step | None:
        """Take the probability that there is speech in the next window; returns what it means.

        replying  whether a reply is on its way, or being played
        """
        c = self.config
        self._speaking = probability >= (
            c.silence_threshold if self._speaking else c.speech_threshold
        )
        self._run = self._run + 1 if self._speaking else 0
        self._length += 1
        if self._deaf:
            self._silent = 0 if self._speaking else self._silent + 1
            self._deaf = not self._lasted(self._silent, c.pause_ms)
            return None
        if self.phase is Phase.QUIET:
            return self._quiet(replying)
        if self.phase is Phase.SPEECH:
            return self._speech()
        return self._pause() if self.phase is Phase.PAUSE else self._interruption()

    @property
    def idle(self) -> bool:
        """In SPEECH: it has been silent for as long as a pause, too early in the turn for one."""
        return self._lasted(self._silent, self.config.pause_ms)

    def give_up(self) -> None:
        """The turn cannot be taken; the user is not listened to before the next silence."""
        self._deaf |= self.phase is not Phase.QUIET and self._speaking
        self._enter(Phase.QUIET)

    def _quiet(self, replying: bool) -> Step | None:
        if not self._onset():
            return None
        if replying:
            return self._enter(Phase.INTERRUPTION, Signal.INTERRUPTION, self._run)
        return self._enter(Phase.SPEECH, Signal.SPEECH_START, self._run)

    def _speech(self) -> Step | None:
        c = self.config
        self._count()
        if self._lasted(self._length, c.most_turn_ms):
            self.give_up()
            return Step(Signal.ENDPOINT, 0)
        if not self._lasted(self._voiced, c.least_speech_ms):
            if self._lasted(self._silent, c.endpoint_ms):
                return self._enter(Phase.QUIET, Signal.DROPPED, self._length)
        elif self._lasted(self._silent, c.pause_ms):
            self.phase = Phase.PAUSE
            return Step(Signal.PAUSE, self._silent)
        return None

    def _pause(self) -> Step | None:
        if self._onset():
            self.phase = Phase.SPEECH
            self._voiced += self._run
            self._silent = 0
            return Step(Signal.RESUME, self._run)
        self._silent += not self._speaking  # a single window of noise does not start it again
        if self._lasted(self._silent, self.config.endpoint_ms):
            return self._enter(Phase.QUIET, Signal.ENDPOINT, self._silent)
        return None

    def _interruption(self) -> Step | None:
        self._count()
        if self._lasted(self._voiced, self.config.interruption_ms):
            self.phase = Phase.SPEECH
            return Step(Signal.BARGE_IN, self._length)
        if self._lasted(self._silent, self.config.false_interruption_ms):
            return self._enter(Phase.QUIET, Signal.FALSE_INTERRUPTION, self._length)
        return None

    def _enter(self, phase: Phase, signal: Signal | None = None, since: int = 0) -> Step | None:
        """Change the phase at the beginning or the end of something heard."""
        self.phase = phase
        self._voiced = self._length = self._run if phase is not Phase.QUIET else 0
        self._silent = 0
        return None if signal is None else Step(signal, since)

    def _count(self) -> None:
        self._voiced += self._speaking
        self._silent = 0 if self._speaking else self._silent + 1

    def _onset(self) -> bool:
        return self._lasted(self._run, self.config.onset_ms)

    def _lasted(self, windows: int, ms: float) -> bool:
        return windows * self._window_ms >= ms
