"""A recording is heard as from a microphone: on time, without drift, and completely."""

from types import SimpleNamespace

import numpy as np
import pytest

from antiphon.apps.exchange import hear
from antiphon.apps.waterfall import lines
from antiphon.runtime.metrics import TurnMetrics
from antiphon.runtime.scheduler import Job


class SlowSession:
    """Needs `work_s` for every block; time passes only while it works or sleeps."""

    manifest = SimpleNamespace(encoder=SimpleNamespace(sample_rate_hz=16000))

    def __init__(self, work_s: float) -> None:
        self.work_s, self.now, self.waiting = work_s, 100.0, 0
        self.came: list[float] = []
        self.ended = False

    def listen(self, block: np.ndarray) -> None:
        self.came.append(self.now)
        self.waiting += 1

    def step(self) -> Job:
        if not self.waiting:
            return Job.WAIT
        self.waiting -= 1
        self.now += self.work_s
        return Job.HEAR

    def end_turn(self) -> None:
        self.ended = True

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


@pytest.mark.parametrize("work_s", [0.0, 0.004, 0.0099])
def test_blocks_come_as_from_a_microphone_without_drift(work_s):
    session = SlowSession(work_s)
    pcm = np.zeros(16000 + 80)
    hear(session, pcm, realtime=True, clock=lambda: session.now, sleep=session.sleep)
    due = 100 + np.minimum(np.arange(1, 102) * 0.01, 1.005)
    late = np.array(session.came) - due
    assert late.min() >= -1e-9
    assert late.max() <= work_s + 1e-9
    assert session.ended


def test_a_session_that_cannot_keep_up_gets_its_blocks_late_but_gets_them():
    session = SlowSession(0.025)
    hear(session, np.zeros(16000), realtime=True, clock=lambda: session.now, sleep=session.sleep)
    assert len(session.came) == 100
    assert session.now == pytest.approx(101, abs=0.03)


def test_hearing_fast_works_everything_in_before_the_end():
    session = SlowSession(0.02)
    hear(session, np.zeros(1600), realtime=False, clock=lambda: session.now, sleep=None)
    assert (len(session.came), session.waiting, session.ended) == (10, 0, True)


def test_the_waterfall_of_a_turn_without_sound():
    assert lines(TurnMetrics()) == ["worked 0.00 s"]
