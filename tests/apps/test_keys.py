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


def test_the_terminal_is_restored_when_the_program_is_ended(terminal):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught, keyboard(terminal[1]):
        os.kill(os.getpid(), signal.SIGTERM)
    assert caught.value.code == 128 + signal.SIGTERM
    assert not is_changed(terminal[1])
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_end_of_a_pipe_is_the_end():
    read, write = os.pipe()
    with os.fdopen(read) as stdin, keyboard(stdin.fileno()) as keys:
        assert keys() == ""
        os.write(write, b"\n")
        assert keys() == "\n"
        os.close(write)
        assert keys() == END
