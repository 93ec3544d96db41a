"""The scheduler on a fake clock: order of jobs, and no underrun while the work fits."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.errors import ConfigError
from antiphon.runtime.scheduler import Job, SchedulerConfig, SchedulerState, next_job

CONFIG = SchedulerConfig(low_mark_ms=480, high_mark_codes=25)
CODE_MS = 80.0
HOP, LOOKAHEAD, WITHHELD = 5, 3, 2  # codes; the vocoder withholds 8 frames = 2 codes
CALLS = 12  # engine calls of a hop: encoder, ten Euler steps, vocoder


@dataclass
class FakeSession:
    """Codes and milliseconds instead of models; job times are fractions of the budget."""

    budget_ms: float  # what one hop (five THINK, all its SPEAK) plus one other job may cost
    fractions: list[float]
    codes: int  # of the whole reply
    hear_every_ms: float = 0.0
    now: float = 0.0
    playback_ms: float = 0.0
    made: int = 0
    spoken: int = 0
    calls: int = 0  # done for the next hop
    owed: int = 0
    underruns: int = 0
    next_audio: float = 1e18
    log: list[Job] = field(default_factory=list)

    def state(self) -> SchedulerState:
        ready = self.made - self.spoken >= HOP + LOOKAHEAD
        return SchedulerState(
            audio_waiting=self.now >= self.next_audio,
            thinking=self.made < self.codes,
            unspoken_codes=self.made - self.spoken,
            speakable=ready or self.spoken < self.made == self.codes,
            playback_ms=self.playback_ms,
            untidy=self.owed > 0,
        )

    def cost_ms(self, job: Job) -> float:
        """Parts sum to the budget at worst: 5 THINK at 10 %, a hop 30 %, two others at 10 %."""
        fraction = self.fractions[len(self.log) % len(self.fractions)]
        share = 0.3 / CALLS if job is Job.SPEAK else 0.1
        return 1.0 if job is Job.WAIT else share * fraction * self.budget_ms

    def run(self, job: Job) -> None:
        cost = self.cost_ms(job)
        self.log.append(job)
        self.now += cost
        if 0 < self.spoken < self.codes and self.playback_ms < cost:
            self.underruns += 1
        self.playback_ms = max(0.0, self.playback_ms - cost)
        if job is Job.HEAR:
            self.next_audio += self.hear_every_ms
        elif job is Job.THINK:
            self.made += 1
            self.owed += 1
        elif job is Job.TIDY:
            self.owed = 0
        elif job is Job.SPEAK:
            self.speak()

    def speak(self) -> None:
        self.calls += 1
        if self.calls < CALLS:
            return
        self.calls = 0
        last = self.made == self.codes and self.made - self.spoken <= HOP
        count = self.made - self.spoken if last else HOP
        frames = count + (0 if self.spoken else -WITHHELD) + (WITHHELD if last else 0)
        self.spoken += count
        self.playback_ms += frames * CODE_MS


@settings(max_examples=60)
@given(
    fractions=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30),
    codes=st.integers(1, 60),
    hearing=st.booleans(),
)
def test_playback_never_starves_while_jobs_fit(
    fractions: list[float], codes: int, hearing: bool
) -> None:
    """The first hop brings three codes of sound, so a hop of work has to fit into their 240 ms."""
    session = FakeSession(budget_ms=239, fractions=fractions, codes=codes)
    if hearing:  # at most one HEAR per hop of work fits this budget
        session.next_audio, session.hear_every_ms = 0.0, 240.0
    for _ in range(20_000):
        if session.spoken == codes and not session.owed:
            break
        session.run(next_job(session.state(), CONFIG))
    assert session.spoken == codes
    assert session.underruns == 0
    if codes > HOP + LOOKAHEAD and not hearing:
        assert session.log.index(Job.SPEAK) == HOP + LOOKAHEAD  # the first sound is not held back


def test_codes_never_pile_up_above_the_high_mark() -> None:
    session = FakeSession(budget_ms=10, fractions=[1.0], codes=120)
    highest = 0
    while session.spoken < 120:
        session.run(next_job(session.state(), CONFIG))
        highest = max(highest, session.made - session.spoken)
    assert highest <= CONFIG.high_mark_codes
    assert session.underruns == 0


@pytest.mark.parametrize(
    ("state", "job"),
    [
        ({}, Job.WAIT),
        ({"untidy": True}, Job.TIDY),
        ({"audio_waiting": True, "thinking": True, "speakable": True}, Job.HEAR),
        ({"thinking": True, "untidy": True}, Job.THINK),  # a text reply, too
        ({"thinking": True, "speakable": True}, Job.SPEAK),
        ({"thinking": True, "speakable": True, "playback_ms": 480}, Job.THINK),
        (
            {"thinking": True, "speakable": True, "playback_ms": 480, "unspoken_codes": 25},
            Job.WAIT,
        ),
        ({"thinking": True, "unspoken_codes": 27}, Job.THINK),  # a voice of chunks of 25 codes
        ({"speakable": True, "playback_ms": 479}, Job.SPEAK),
        ({"speakable": True, "playback_ms": 900, "untidy": True}, Job.TIDY),
        ({"speakable": True, "playback_ms": 900}, Job.WAIT),
    ],
)
def test_order_of_jobs(state: dict[str, object], job: Job) -> None:
    assert next_job(SchedulerState(**state), CONFIG) is job


def test_marks_must_be_positive() -> None:
    with pytest.raises(ConfigError):
        SchedulerConfig(low_mark_ms=0)
