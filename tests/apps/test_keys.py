"""Keys come one by one, and the terminal is always restored."""

import os
import signal
import termios

import pytest

from antiphon.apps.keys import END, keyboard


@pytest.fixture
def terminal():
    """(what the person types into, what the program reads)."""
    person, program = os.openpty()
    yield person, program
    os.close(person)
    os.close(program)


def is_changed(fd) -> bool:
    return not termios.tcgetattr(fd)[3] & termios.ICANON


def test_keys_come_at_once_and_the_terminal_is_restored(terminal):
    person, program = terminal
    with keyboard(program) as keys:
        assert is_changed(program)
        assert keys() == ""
        os.write(person, b" q")
        assert set(keys()) <= set(" q")
    assert not is_changed(program)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_the_terminal_is_restored_after_an_error(error, terminal):
    with pytest.raises(error), keyboard(terminal[1]):
        raise error
    assert not is_changed(terminal[1])


def test_what_is_no_plain_key_presses_none(terminal):
    person, program = terminal
    with keyboard(program) as keys:
        for sequence in (b"\x1bOQ", b"\x1b[15~", b"\x1b[1;5M", b"\x1bOM", b"\x1b"):
            os.write(person, sequence)  # F2, F5, a chord, the keypad's Enter, Escape
            assert keys() == ""
        os.write(person, b"\x1b[Am")
        assert keys() == "m"


@pytest.mark.parametrize(
    ("number", "error"), [(signal.SIGTERM, SystemExit(143)), (signal.SIGINT, KeyboardInterrupt())]
)
def test_the_program_is_ended_behind_the_block(number, error, terminal):
    before, pressed = signal.getsignal(number), []

    def run():
        with keyboard(terminal[1]) as keys:
            pressed.append(keys())
            os.kill(os.getpid(), number)
            pressed.append(keys())

    with pytest.raises(type(error)) as caught:
        run()
    assert pressed == ["", END]
    assert caught.value.args == error.args
    assert not is_changed(terminal[1])
    assert signal.getsignal(number) == before


def test_the_second_time_the_program_is_ended_at_once(terminal):
    def run():
        with keyboard(terminal[1]):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("not at once")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert not is_changed(terminal[1])


def test_the_end_of_a_pipe_is_the_end():
    read, write = os.pipe()
    with os.fdopen(read) as stdin, keyboard(stdin.fileno()) as keys:
        assert keys() == ""
        os.write(write, b"\n")
        assert keys() == "\n"
        os.close(write)
        assert keys() == END
