"""The turn-taking machine alone: # is a window of speech, . one of silence, 10 ms each."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.runtime.errors import ConfigError
from antiphon.runtime.turn_taking import Phase, Signal, Step, TurnConfig, TurnTaker

CONFIG = TurnConfig(
    onset_ms=20,
    pause_ms=40,
    endpoint_ms=80,
    least_speech_ms=40,
    most_turn_ms=400,
    interruption_ms=60,
    false_interruption_ms=50,
)
PROBABILITY = {"#": 0.9, ".": 0.1, "~": 0.4}  # ~: speech if it has begun


def signals(pattern: str, *, replying: bool = False) -> list[tuple[int, Signal, int]]:
    """(number of windows up to it, signal, windows since what it speaks of began)."""
    taker, found = TurnTaker(CONFIG, 10), []
    for count, sign in enumerate(pattern, 1):
        step = taker.push(PROBABILITY[sign], replying=replying)
        if step is not None:
            found.append((count, step.signal, step.since))
    return found


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("." * 50, []),
        ("#.#.#.#." * 9, []),  # never two windows in a row
        (
            "..######........",
            [(4, Signal.SPEECH_START, 2), (12, Signal.PAUSE, 4), (16, Signal.ENDPOINT, 8)],
        ),
        (
            "####......####",
            [(2, Signal.SPEECH_START, 2), (8, Signal.PAUSE, 4), (12, Signal.RESUME, 2)],
        ),
        (  # one window of noise in a pause is neither speech nor silence
            "####....#.#...",
            [(2, Signal.SPEECH_START, 2), (8, Signal.PAUSE, 4), (14, Signal.ENDPOINT, 8)],
        ),
        ("###........", [(2, Signal.SPEECH_START, 2), (11, Signal.DROPPED, 11)]),
        ("####...####...", [(2, Signal.SPEECH_START, 2)]),
        ("~~~##~~~~....", [(5, Signal.SPEECH_START, 2), (13, Signal.PAUSE, 4)]),
    ],
)
def test_a_turn(pattern, expected):
    assert signals(pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("####.....", [(2, Signal.INTERRUPTION, 2), (9, Signal.FALSE_INTERRUPTION, 9)]),
        ("######", [(2, Signal.INTERRUPTION, 2), (6, Signal.BARGE_IN, 6)]),
        ("###...###", [(2, Signal.INTERRUPTION, 2), (9, Signal.BARGE_IN, 9)]),
        (
            "######....####....",
            [
                (2, Signal.INTERRUPTION, 2),
                (6, Signal.BARGE_IN, 6),
                (10, Signal.PAUSE, 4),
                (12, Signal.RESUME, 2),
                (18, Signal.PAUSE, 4),
            ],
        ),
    ],
)
def test_a_sound_over_the_reply(pattern, expected):
    assert signals(pattern, replying=True) == expected


def test_a_turn_without_end_is_ended_and_then_silence_is_waited_for():
    found = signals("#" * 60 + "..." + "#" * 10 + "...." + "####")
    assert found == [
        (2, Signal.SPEECH_START, 2),
        (40, Signal.ENDPOINT, 0),
        (79, Signal.SPEECH_START, 2),  # not before four windows of silence
    ]


def test_who_gave_up_waits_for_silence():
    taker = TurnTaker(CONFIG, 10)
    for _ in range(5):
        taker.push(0.9, replying=False)
    taker.give_up()
    taker.give_up()  # again: nothing is left to give up
    assert taker.phase is Phase.QUIET
    assert [taker.push(0.9, replying=False) for _ in range(20)] == [None] * 20
    for _ in range(4):
        taker.push(0.1, replying=False)
    taker.push(0.9, replying=False)
    assert taker.push(0.9, replying=False) == Step(Signal.SPEECH_START, 2)


FOLLOWS = {
    None: {Signal.SPEECH_START, Signal.INTERRUPTION},
    Signal.SPEECH_START: {Signal.PAUSE, Signal.ENDPOINT, Signal.DROPPED},
    Signal.PAUSE: {Signal.RESUME, Signal.ENDPOINT},
    Signal.RESUME: {Signal.PAUSE, Signal.ENDPOINT},
    Signal.INTERRUPTION: {Signal.BARGE_IN, Signal.FALSE_INTERRUPTION},
    Signal.BARGE_IN: {Signal.PAUSE, Signal.ENDPOINT},
}


@settings(max_examples=200)
@given(runs=st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.integers(1, 12)), max_size=40))
def test_whatever_is_heard_makes_sense(runs):
    taker, last, silent = TurnTaker(CONFIG, 10), None, 0
    for probability, replying, count in runs:
        for _ in range(count):
            step = taker.push(probability, replying=replying)
            silent = silent + 1 if probability < CONFIG.silence_threshold else 0
            if step is None:
                continue
            assert step.signal in FOLLOWS.get(last, FOLLOWS[None])
            assert step.since >= 0
            if step.signal is Signal.ENDPOINT and step.since:
                assert step.since == 8  # of silence, single windows of speech not counted
            last = step.signal
    for _ in range(20):  # silence settles everything: nothing is stuck
        taker.push(0.0, replying=False)
    assert taker.phase is Phase.QUIET


@pytest.mark.parametrize(
    "wrong",
    [
        {"speech_threshold": 0.2},
        {"silence_threshold": 0.0},
        {"speech_threshold": 1.1},
        {"pause_ms": 901.0},
        {"endpoint_ms": 30_000.0},
        {"onset_ms": 200.0},
        {"preroll_ms": -1.0},
        {"false_interruption_ms": 0.0},
    ],
)
def test_config_checks_itself(wrong):
    with pytest.raises(ConfigError):
        TurnConfig(**wrong)
