"""What long work says: lines for a log, a bar with the time left for a terminal."""

import io
import re

import pytest

from antiphon.apps.progress import Bar, Lines


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def bar(clock):
    return Bar(io.StringIO(), clock)


def screen(bar):
    """What a terminal shows: every line after its last return to the left."""
    lines = bar.out.getvalue().split("\n")
    return [re.split("\r\x1b\\[K", line)[-1] for line in lines]


def test_a_log_has_one_line_for_each_step():
    lines = Lines(io.StringIO())
    lines.step("trunk", 1, 9)
    lines.advance(1, 2)
    lines.note("slow disk")
    lines.close()
    assert lines.out.getvalue() == "2/9 trunk\nslow disk\n"


def test_a_bar_says_how_far_and_how_long(bar, clock):
    bar.step("trunk", 1, 9)
    bar.advance(0, 1000)
    clock.now += 10
    bar.advance(250, 1000)
    assert screen(bar) == ["2/9 trunk", "[######                  ]  25 %  0:30 left"]
    clock.now += 100
    bar.advance(500, 1000)
    assert screen(bar)[-1].endswith(" 50 %  1:50 left")


def test_a_step_takes_the_place_of_the_bar_and_the_bar_follows(bar, clock):
    bar.advance(0, 1000)
    clock.now += 10
    bar.advance(500, 1000)
    bar.step("vocoder", 6, 9)
    clock.now += 1
    bar.advance(550, 1000)
    assert screen(bar) == ["7/9 vocoder", f"[{'#' * 13}{' ' * 11}]  55 %  0:09 left"]
    bar.close()
    assert screen(bar) == ["7/9 vocoder", ""]


def test_a_bar_is_drawn_ten_times_a_second_at_most_and_at_the_end(bar, clock):
    for i in range(1001):
        bar.advance(i, 1000)
        clock.now += 0.001
    drawn = bar.out.getvalue().count("\r")
    assert 8 <= drawn <= 12
    assert "100 %" in screen(bar)[-1]


def test_work_of_no_weights_is_done(bar):
    bar.advance(0, 0)
    assert "100 %" in screen(bar)[-1]
    Bar(io.StringIO()).close()
