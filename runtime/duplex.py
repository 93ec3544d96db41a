"""A conversation without buttons: sound goes in all the time, and comes out when it is due.

    playback = Playback(24_000 * 5)                 # an AudioRing; the output callback reads it
    talk = DuplexSession(bundle, playback=playback, heard=lambda: speaker.played)
    while True:                                     # one thread
        for clean, raw in microphone.blocks():      # 16 kHz, after and before echo cancellation
            talk.hear(clean, raw)
        job = talk.step()                           # Job.WAIT: sleep until the next block
        for event in talk.events():
            ...
    playback.read(out)                              # the other thread: the output callback

No device and no clock in here: time is counted in samples of the microphone, so a conversation
can be held from files, and every block size gives the same one.

What is understood (`TurnTaker`)  what is done about it
SPEECH_START                      a turn begins, some moments before it was noticed
PAUSE                             the reply is prepared, and kept back
RESUME                            it is taken back, and the turn goes on
ENDPOINT                          it is played
INTERRUPTION                      the loudspeaker falls silent, but nothing is lost
BARGE_IN                          the reply ends at what was heard of it, and a turn begins; if
                                  the user cannot have reacted to it, it was a RESUME
FALSE_INTERRUPTION                the reply is played on
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ClassVar

import numpy as np

from .audio_ring import Pcm
from .bundle import Bundle
from .duplex_config import DuplexConfig
from .duplex_event import Activity, Event, Kind
from .errors import AntiphonError, AudioError, CapacityError
from .metrics import Clock
from .playback import Playback
from .reply import Reply
from .scheduler import Job
from .session import Session
from .tape import Tape
from .turn_taking import Phase, Signal, TurnTaker
from .user_turn import checked
from .vad import RATE_HZ, WINDOW_MS, WINDOW_SAMPLES, VoiceDetector

PLAYBACK_S = 5
TAPE_S = 20  # longer than anything that may still become part of a turn


class DuplexSession:
    """Listens, decides whose turn it is, and drives a `Session`. One thread calls everything."""

    def __init__(
        self,
        bundle: Bundle,
        config: DuplexConfig | None = None,
        *,
        playback: Playback | None = None,
        heard: Callable[[], int] | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Load the engines.

        playback  where the reply's samples go, at the vocoder's rate; made if none is given
        heard     index of the next sample to leave the loudspeaker, as `playback.position`
                  counts: that less what waits in the device. Default: `playback.position`
        """
        self.config = config or DuplexConfig()
        self.manifest = m = bundle.manifest
        assert m.encoder.sample_rate_hz == RATE_HZ, "the manifest allows no other rate"
        self.playback = (
            Playback(m.vocoder.sample_rate_hz * PLAYBACK_S) if playback is None else playback
        )
        self.session = Session(
            bundle, self.config.session, playback=self.playback, heard=heard, clock=clock
        )
        self._taker = TurnTaker(self.config.turns_for(m), WINDOW_MS)
        self._detector = VoiceDetector()
        self._clean: Pcm = np.zeros(0, np.float32)  # less than a window
        self._raw = Tape(RATE_HZ * TAPE_S)
        self._now = 0  # samples of the microphone that were looked at
        self._taken = 0  # samples before it are in a turn already, or never will be
        self._owed = False  # a reply is on its way, or being played
        self._began_s: float | None = None  # when its beginning was told
        self._in_time = False  # an interruption that cannot be a reaction to the reply
        self._pressed = False
        self._events: list[Event] = []

    @property
    def time_s(self) -> float:
        """Seconds of microphone sound so far."""
        return self._now / RATE_HZ

    @property
    def activity(self) -> Activity:
        """What is going on."""
        if self._taker.phase is Phase.INTERRUPTION:
            return Activity.INTERRUPTED
        if self._pressed or self._taker.phase is not Phase.QUIET:
            return Activity.HEARING
        if self._owed:
            return Activity.THINKING if self._began_s is None else Activity.SPEAKING
        return Activity.LISTENING

    def events(self) -> list[Event]:
        """What has happened since the last call."""
        happened, self._events = self._events, []
        return happened

    def hear(self, clean: Pcm, raw: Pcm | None = None) -> None:
        """Take a block [S] of the microphone, float32 in ±1 at 16 kHz.

        clean  for the voice detector: without echo and noise
        raw    for the model, the same samples as they were recorded; default: `clean`
        """
        clean = checked(clean)
        raw = clean if raw is None else checked(raw)
        if len(raw) != len(clean):
            raise AudioError(f"blocks of {len(clean)} and {len(raw)} samples, expected as many")
        for at in range(0, len(clean), WINDOW_SAMPLES):
            self._raw.push(raw[at : at + WINDOW_SAMPLES])
            if self.config.push_to_talk:
                self._now = self._raw.end
                if self._pressed:
                    self._listen()
            else:
                self._detect(clean[at : at + WINDOW_SAMPLES])
            self._follow()

    def step(self) -> Job:
        """Run one job and say which, as `Session.step`; a turn that does not fit is an event."""
        try:
            job = self.session.step()
        except AntiphonError as error:
            self._drop(str(error))
            if not isinstance(error, CapacityError):
                raise
            job = Job.WAIT
        self._follow()
        return job

    def say(self, text: str) -> None:
        """Take a whole written turn; whatever is going on ends."""
        self.stop()
        self.session.say(text)
        self._owed = True

    def press(self) -> None:
        """The user's turn begins, and what is left of a reply ends. Only with push_to_talk."""
        assert self.config.push_to_talk
        if not self._pressed:
            self._taken, self._pressed = self._now, True
            self._begin(self._now)

    def release(self) -> None:
        """The user's turn ends. Only with push_to_talk."""
        assert self.config.push_to_talk
        if self._pressed:
            self._pressed = False
            self._endpoint(self._now)

    def stop(self) -> None:
        """Be silent now: drop the user's turn if one is open, else end the reply."""
        if self.activity is Activity.HEARING:
            self._drop("stopped")
        self.session.cancel()
        self._follow()
        self._taker.give_up()
        self.playback.release()

    def _detect(self, clean: Pcm) -> None:
        """Look at the next window when it is whole, and do what it asks for."""
        self._clean = np.concatenate([self._clean, clean])
        if len(self._clean) < WINDOW_SAMPLES:
            return
        window, self._clean = np.split(self._clean, [WINDOW_SAMPLES])
        self._now += WINDOW_SAMPLES
        self._follow()  # the reply may just have been heard to its end
        probability = self._detector.push(window)
        step = self._taker.push(probability, replying=self.session.replying)
        if step is not None:
            self._ACTIONS[step.signal](self, self._now - step.since * WINDOW_SAMPLES)
        if self._taker.phase is Phase.SPEECH and self._taker.idle:
            self._skip(self._now, self._taker.config.rejoin_ms)
        elif self._taker.phase is Phase.SPEECH:
            self._listen()

    # what is done about a signal; `onset` is the sample at which began what it speaks of

    def _begin(self, onset: int) -> None:
        """A turn begins, or the last one goes on because it was not over."""
        reply, kind = self.session.reply, Kind.SPEECH_START
        if self._owed:
            kind = Kind.BARGE_IN
            if self._in_time and self.session.take_back():
                kind, self._owed = Kind.RESUME, self._began_s is not None
            else:
                self.session.cancel()
        self._tell(kind, onset, reply)
        self._follow(reply)
        self.playback.release()
        config = self._taker.config
        self._skip(onset, config.rejoin_ms if kind is Kind.RESUME else config.preroll_ms)
        self._listen()

    def _pause(self, onset: int) -> None:
        if self.config.speculate:
            self.session.end_turn(commit=False)
        self._tell(Kind.PAUSE, onset)

    def _resume(self, onset: int) -> None:
        self._skip(onset, self._taker.config.rejoin_ms)
        self._listen()
        self._tell(Kind.RESUME, onset)

    def _endpoint(self, onset: int) -> None:
        self.session.end_turn()
        self._owed = True
        self._tell(Kind.ENDPOINT, onset)

    def _dropped(self, _onset: int) -> None:
        self._drop("too short to be speech")

    def _interruption(self, onset: int) -> None:
        self.playback.hold()
        heard_ms = self._heard_ms() - 1000 * (self._now - onset) / RATE_HZ
        self._in_time = heard_ms <= self._taker.config.take_back_ms
        self._tell(Kind.INTERRUPTION, onset, self.session.reply)

    def _false_interruption(self, onset: int) -> None:
        self.playback.release()
        self._tell(Kind.FALSE_INTERRUPTION, onset, self.session.reply)

    _ACTIONS: ClassVar[dict[Signal, Callable[[DuplexSession, int], None]]] = {
        Signal.SPEECH_START: _begin,
        Signal.PAUSE: _pause,
        Signal.RESUME: _resume,
        Signal.ENDPOINT: _endpoint,
        Signal.DROPPED: _dropped,
        Signal.INTERRUPTION: _interruption,
        Signal.BARGE_IN: _begin,
        Signal.FALSE_INTERRUPTION: _false_interruption,
    }

    def _skip(self, onset: int, before_ms: float) -> None:
        """What was heard until shortly before the onset belongs to no turn."""
        self._taken = max(self._taken, onset - round(before_ms * RATE_HZ / 1000))

    def _listen(self) -> None:
        """The turn gets what was heard since it last got something."""
        self.session.listen(self._raw.read(self._taken, self._now))
        self._taken = self._now

    def _drop(self, reason: str) -> None:
        """There will be no reply to the last turn."""
        self.session.cancel()
        self._taker.give_up()
        self._owed = self._pressed = False
        self._tell(Kind.DROPPED, self._now, reason=reason)

    def _heard_ms(self) -> float:
        """How much of the reply the user has had: of the sound, or of the time to read."""
        if self.config.session.reply == "text":
            return 0.0 if self._began_s is None else 1000 * (self.time_s - self._began_s)
        return 1000 * (self.session.outlet.heard or 0) / self.manifest.vocoder.sample_rate_hz

    def _follow(self, ended: Reply | None = None) -> None:
        """Notice that a reply has begun, or is over; `ended` if the session has forgotten it."""
        reply = ended or self.session.reply
        if not self._owed:
            self._began_s = None
            return
        if self._began_s is None and reply is not None and reply.begun:
            self._began_s = self.time_s
            self._tell(Kind.REPLY_BEGAN, self._now, reply)
        if not self.session.replying:
            self._owed, self._began_s = False, None
            self._tell(Kind.REPLY_ENDED, self._now, reply)

    def _tell(self, kind: Kind, at: int, reply: Reply | None = None, *, reason: str = "") -> None:
        self._events.append(Event(kind, at / RATE_HZ, self.time_s, reply, reason))
