"""What a talk tells the person at the terminal: what happens, written replies, level and state."""

from __future__ import annotations

from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_event import Event, Kind
from antiphon.runtime.reply import Ending, Reply

from .exchange import printable
from .microphone import Pcm
from .sound_card import SoundCard, describe
from .status_line import Meter, StatusLine

HANDS_FREE = "speak; Enter: stop the reply, m: mute, q: quit"
PUSH_TO_TALK = "Enter: talk, Enter: done, m: mute, q: quit"


class Report:
    """Lines on stderr; written replies on stdout."""

    def __init__(self, duplex: DuplexSession, card: SoundCard, line: StatusLine) -> None:
        self._duplex, self._card, self._line = duplex, card, line
        self._meter = Meter()
        self._written: Reply | None = None  # being printed …
        self._printed = 0  # … so much of it
        self._midline = False  # what was printed last has no end of line yet
        self._spoken_until = 0.0  # the end of the last turn, in seconds of microphone sound

    def begin(self) -> None:
        """The first lines."""
        for port in self._card.ports:
            self.say(describe(port))
        self.say(PUSH_TO_TALK if self._duplex.config.push_to_talk else HANDS_FREE)

    def end(self) -> None:
        """The last line."""
        self._line.clear()
        self.say(", ".join(f"{count} {name}" for name, count in self._card.faults.items()))

    def say(self, text: str) -> None:
        """A line that stays."""
        self._end_line()
        self._line.say(f"-- {text}")

    def hear(self, block: Pcm) -> None:
        """10 ms of the microphone, for the meter."""
        self._meter.push(block)

    def tell(self, event: Event) -> None:
        """Something happened."""
        if event.kind is Kind.ENDPOINT:
            self._spoken_until = event.at_s
        elif event.kind is Kind.DROPPED:
            self.say(f"not answered: {event.reason}")
        elif event.kind is Kind.BARGE_IN:
            self.say("interrupted")
        elif event.kind is Kind.REPLY_BEGAN and event.reply is not None:
            waited_ms = 1000 * (event.decided_s - self._spoken_until)
            self.say(f"answering, {waited_ms:.0f} ms after you stopped")
            self._written = None if event.reply.spoken else event.reply
            self._printed = 0
        elif event.kind is Kind.REPLY_ENDED and event.reply is not None:
            self._ended(event.reply)

    def transcribe(self) -> None:
        """Print what has been added to a written reply."""
        if (reply := self._written) is not None and len(reply.text) > self._printed:
            self._line.clear()
            print(printable(reply.text[self._printed :]), end="", flush=True)
            self._printed, self._midline = len(reply.text), True

    def show(self, *, muted: bool) -> None:
        """The line that changes; not while a reply is being written there."""
        if self._midline:
            return
        activity = "muted" if muted else self._duplex.activity.value
        faults = [f"  {count} {name}" for name, count in self._card.faults.items() if count]
        self._line.show(f"{activity:<11} {self._meter}{''.join(faults)}")

    def _end_line(self) -> None:
        if self._midline:
            print(flush=True)
            self._midline = False

    def _ended(self, reply: Reply) -> None:
        if self._written is reply:
            self.transcribe()
            self._written = None
            self._end_line()
        if reply.ending is Ending.TRUNCATED:
            self.say("cut off; allow more with --max-tokens, if the context has room")
        elif reply.ending is Ending.COMPLETE:
            self.say(f"answered in {reply.metrics.spoken_s:.1f} s" if reply.spoken else "answered")
        elif reply.heard_codes != 0:  # else it was taken back, for the user went on
            self.say("stopped")
