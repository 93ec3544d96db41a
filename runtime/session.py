"""A conversation with the model. The only file that calls every stage (design §6).

    microphone -> listen -> encoder -> lm.prefill -> logits -> sampler -> voice -> playback ring

One thread calls everything here; only the playback ring has a second one, which reads it. `listen`,
`say` and `end_turn` merely note what came; `step` does the work, one job at a time. So nothing
waits for longer than one job: not the next block of sound, not a cancel.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from .audio_ring import AudioRing, Pcm
from .backend import give_back_heap
from .bundle import Bundle
from .conversation import Conversation
from .errors import AntiphonError
from .metrics import Clock, TurnMetrics
from .outlet import Outlet
from .reply import Reply
from .scheduler import Job, SchedulerState, next_job
from .session_config import SessionConfig
from .stages import Stages
from .text import TextStream
from .thinker import CLOSING_ROWS, Thinker
from .user_turn import UserTurn, checked, make_room, next_rows
from .voice import SpeechDecoder

POLL_S = 0.005  # how often `run_reply` looks whether something was played


class Session:
    """Turns of user and model, alternating; the user's may be spoken or written each time."""

    def __init__(
        self,
        bundle: Bundle,
        config: SessionConfig | None = None,
        *,
        playback: AudioRing | None = None,
        heard: Callable[[], int] | None = None,
        clock: Clock = time.perf_counter,
    ) -> None:
        """Load the engines and run the system turn.

        playback  where reply samples go, at the vocoder's rate; the voice pauses while it holds
                  enough. None: the caller takes them from the reply, and nothing pauses
        heard     index of the next sample of `playback` to leave the loudspeaker; by default
                  that of the next to leave the ring
        """
        self.config, self._clock = config or SessionConfig(), clock
        self.manifest = m = bundle.manifest
        self._code_samples = m.flow.mel_per_token * m.vocoder.samples_per_frame
        self._stages = Stages.load(bundle, self.config)
        self._lm, self._voice = self._stages.lm, self._stages.voice
        self.outlet = Outlet(playback, heard)
        self.reset()

    def reset(self) -> None:
        """Forget the conversation; the engines stay loaded."""
        self._turn: UserTurn | None = None  # open, or ended and not yet worked in
        self._answered: UserTurn | None = None  # the one that `reply` answers
        self.reply: Reply | None = None
        self.metrics = TurnMetrics(self._clock)
        self._thinker: Thinker | None = None  # of `reply`
        self._crowded = False  # room should be made for the next exchange
        self._stages.encoder.reset()
        self._silence()
        self._lm.reset()
        self._lm.prefill(self._stages.system)
        self._spare_rows = self._lm.free // 4

    def restore(self, saved: Conversation) -> None:
        """Go on with a saved `conversation`. Errors as `Conversation.check`."""
        saved.check(self._stages.system, self.manifest)
        self.reset()
        for rows in saved.newest(self._lm.free):
            self._lm.begin_turn()
            self._lm.prefill(rows)
        self._lm.make_room(self._spare_rows)

    # what the user does

    def listen(self, pcm: Pcm) -> None:
        """Take a block [S] of the user's speech, float32 in ±1 at the encoder's rate.

        The first block opens a turn. A reply still being made or played is cancelled by that
        (barge-in); one that was only prepared is taken back, and its turn goes on.
        """
        block = checked(pcm)
        if self.outlet.held:
            self.take_back()
        turn = self._turn or self._open_turn(None)
        if turn.ended:
            raise AntiphonError("this turn has ended; step() until the reply begins, or cancel()")
        turn.put(block)
        self.metrics.heard_s += len(block) / self.manifest.encoder.sample_rate_hz

    def say(self, text: str) -> None:
        """Take a whole written turn. Like `listen` it cancels what is left of a reply."""
        if self._turn is not None:
            raise AntiphonError("another turn is open; end_turn() and step(), or cancel()")
        self._open_turn(text)
        self.end_turn()

    def end_turn(self, *, commit: bool = True) -> None:
        """The user has finished; a turn without any sound counts as a moment of silence.

        commit=False only prepares the reply: nothing is played before `end_turn()`, and `listen`
        takes everything back. Where no turn is being given it does nothing.
        """
        turn = self._turn
        if self.outlet.held or (turn is not None and turn.ended):
            if commit:
                self.outlet.release(self.reply)
        elif turn is not None or commit:
            turn = turn or self._open_turn(None)
            turn.end(self.manifest.encoder.samples_per_code)
            self.outlet.held = not commit
            self.metrics.happened("question_end")

    def take_back(self) -> bool:
        """The user goes on after all: the end of the turn and the reply to it never happened.

        Returns False, and changes nothing, unless a reply to a spoken turn is on its way, or not
        yet heard to its end.
        """
        turn = self._turn or self._answered
        if turn is None or turn.text is not None or not (self.outlet.held or self.replying):
            return False
        if self._turn is None and turn.mark is not None:
            self._lm.rewind(self._lm.length - turn.mark_rows)
            self._stages.encoder.restore(turn.mark)
        if self.reply:
            self.reply.drop()
        self._silence()
        self.metrics.moments.clear()
        turn.ended, self._turn, self.reply = False, turn, None
        return True

    def cancel(self, heard_samples: int | None = None) -> None:
        """Stop now: drop the user's turn if one is open, else end the reply.

        Of a spoken reply the history keeps what was heard: `heard_samples`, by default what has
        left the loudspeaker, or everything made where there is no playback ring. A reply of which
        nothing was heard, or that was only prepared, never happened.
        """
        if self._turn is not None:
            self._lm.rewind(self._lm.length - self._turn.start)
            self._turn = None
            self._stages.encoder.reset()
            self._silence()
            return
        reply, thinker, held = self.reply, self._thinker, self.outlet.held
        if reply and thinker:
            samples = self.outlet.heard if heard_samples is None else heard_samples
            codes = reply.heard(samples, self._code_samples)
            self._silence()
            if held or not reply.finished or codes < len(reply.codes):
                thinker.cut(reply, codes, seen=not held)
                self._crowded = True
                reply.settle(speaking=self._speaking)

    # what the session does

    @property
    def length(self) -> int:
        """Rows since the beginning, forgotten ones too."""
        return self._lm.length

    @property
    def conversation(self) -> Conversation:
        """A copy of what is remembered, to be saved and given to `restore`; no open turn."""
        rows, turns = self._lm.history.rows, self._lm.turns
        if self._turn is not None:
            end = self._turn.start - (self._lm.length - len(rows))
            rows, turns = rows[:end], tuple(turn for turn in turns if turn < end)
        return Conversation(rows.copy(), turns)

    @property
    def replying(self) -> bool:
        """Whether a reply that is wanted is on its way, or not yet heard to its end."""
        turn, reply, outlet = self._turn, self.reply, self.outlet
        going = turn.ended if turn else bool(reply and (not reply.finished or outlet.unheard))
        return going and not outlet.held

    @property
    def state(self) -> SchedulerState:
        """What the scheduler looks at."""
        turn, reply = self._turn, self.reply
        return SchedulerState(
            audio_waiting=turn is not None and (turn.waiting or turn.ended),
            thinking=self._thinker is not None and not self._thinker.done,
            unspoken_codes=reply.unspoken(self._code_samples) if reply else 0,
            speakable=self._speaking,
            playback_ms=1000 * self.outlet.unplayed / self.manifest.vocoder.sample_rate_hz,
            untidy=self._crowded or self._lm.owed > self.config.chunk_rows // 4,
        )

    def step(self) -> Job:
        """Run one job and say which; after WAIT there is nothing to do until something changes.

        Raises CapacityError when the user's turn does not fit, BundleError when an engine fails;
        the user's turn is then dropped, a reply can be gone on with or cancelled.
        """
        job = next_job(self.state, self.config.scheduler)
        if job is Job.HEAR and self._turn:
            self._hear(self._turn)
        elif job is Job.THINK and self._thinker and self.reply:
            self._think(self._thinker, self.reply)
        elif job is Job.SPEAK and self._voice and self.reply:
            self._speak(self._voice, self.reply)
        elif job is Job.TIDY:
            self._tidy()
        self.outlet.deliver(self.reply)
        return job

    def run_reply(self) -> Reply:
        """End the turn and step until the reply is complete. A playback ring has to be read."""
        if self.outlet.held or (self._turn is not None and not self._turn.ended):
            self.end_turn()
        while self._turn is not None or (self.reply is not None and not self.reply.finished):
            if self.step() is Job.WAIT:
                time.sleep(POLL_S)
        if self.reply is None:
            raise AntiphonError("nothing was said; listen() or say() first")
        return self.reply

    def _hear(self, turn: UserTurn) -> None:
        """Encode a piece of what waits and run its rows; after the last one the reply begins."""
        try:
            rows, closing = next_rows(turn, self._stages, self.metrics)
            with self.metrics.stage("prefill"):
                make_room(self._lm, turn, len(rows) + (CLOSING_ROWS + 1 if closing else 0))
                self._lm.prefill(rows)
        except AntiphonError:  # half a turn makes no sense
            self.cancel()
            raise
        if closing:
            self._turn, self._answered = None, turn
            self._thinker = self._stages.thinker()
            self.reply = Reply(bool(self._voice), self.metrics, TextStream(self._stages.text))
            self.metrics.happened("prefilled")

    def _think(self, thinker: Thinker, reply: Reply) -> None:
        """Make one row; a code goes to the voice, which does nothing with it yet."""
        voice = self._voice
        with self.metrics.stage("think"):
            code = thinker.step(reply, voice.flow.max_codes if voice else None)
        self.metrics.happened("first_code")
        if voice and code is not None:
            voice.feed(np.array([code]))
        if thinker.done:
            self._crowded = True
            if voice and reply.codes:
                voice.end()
            reply.settle(speaking=self._speaking)

    def _speak(self, voice: SpeechDecoder, reply: Reply) -> None:
        """One engine call of the voice."""
        before = self._clock()
        with self.metrics.stage("speak"):
            pcm = voice.step()
        if len(pcm):
            self.metrics.happened("first_mel", before)  # samples are one call behind their mel
            self.metrics.spoken_s += len(pcm) / self.manifest.vocoder.sample_rate_hz
            reply.chunks.append(pcm)
            self.outlet.put(pcm)
        reply.settle(speaking=self._speaking)

    def _tidy(self) -> None:
        """Wake a sleeping branch; then keep a quarter of the rows free for the next exchange."""
        with self.metrics.stage("tidy"):
            if not self._lm.pay(self.config.chunk_rows):  # forgetting would pay all at once
                self._lm.make_room(self._spare_rows)
                give_back_heap()
                self._crowded = False

    @property
    def _speaking(self) -> bool:
        return self._voice is not None and self._voice.ready

    def _open_turn(self, text: str | None) -> UserTurn:
        self.cancel()
        self._silence()
        self.reply, self.metrics = None, TurnMetrics(self._clock)
        self._lm.begin_turn()
        self._turn = UserTurn(start=self._lm.length, text=text)
        return self._turn

    def _silence(self) -> None:
        """No reply is being made or played."""
        self._thinker = None
        self.outlet.silence()
        if self._voice:
            self._voice.reset()
