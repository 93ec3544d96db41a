"""What the person at a terminal sees of a written reply, with the changing line beside it."""

import io
import sys
from types import SimpleNamespace

from antiphon.apps.status_line import StatusLine
from antiphon.apps.talk_report import Report
from antiphon.runtime.duplex_event import Activity, Event, Kind
from antiphon.runtime.metrics import TurnMetrics
from antiphon.runtime.reply import Ending, Reply


class Terminal(io.StringIO):
    """stdout and stderr of a person: lines, of which the last one can be written anew."""

    def isatty(self):
        return True

    @property
    def screen(self):
        lines = self.getvalue().split("\n")
        return [line.rsplit("\r\x1b[K", 1)[-1] for line in lines]


def test_a_written_reply_grows_in_a_line_of_its_own(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    duplex = SimpleNamespace(activity=Activity.SPEAKING)
    card = SimpleNamespace(faults={})
    time = iter(range(1000))
    report = Report(duplex, card, StatusLine(terminal, lambda: next(time)))
    reply = Reply(False, TurnMetrics(), None)
    report.show(muted=False)
    assert terminal.screen[-1].startswith("speaking")
    report.tell(Event(Kind.REPLY_BEGAN, 1.0, 1.0, reply))
    for word in ("The", " grass", " is", " green"):
        reply.text += word
        report.transcribe()
        report.show(muted=False)
    assert terminal.screen[-1] == "The grass is green"
    report.tell(Event(Kind.BARGE_IN, 2.0, 2.0, reply))
    assert terminal.screen[-3:] == ["The grass is green", "-- interrupted", ""]
    reply.text += "."
    reply.ending = Ending.COMPLETE
    report.tell(Event(Kind.REPLY_ENDED, 3.0, 3.0, reply))
    assert terminal.screen[-3:] == [".", "-- answered", ""]
    report.show(muted=False)
    assert terminal.screen[-1].startswith("speaking")
