"""The line at the bottom of the terminal, and what other libraries may not write there."""

import io
import os
import subprocess
import sys

import numpy as np

from antiphon.apps.status_line import CLEAR, Meter, StatusLine, private_stderr


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_meter_jumps_up_and_falls_slowly():
    meter = Meter()
    assert str(meter) == "|....................|"
    meter.push(np.array([0.0, -1.0], "f4"))
    assert str(meter) == "|####################|"
    for _ in range(60):
        meter.push(np.zeros(160, "f4"))
    assert str(meter) == "|##########..........|"
    meter.push(np.zeros(0, "f4"))


def test_the_line_changes_now_and_then_under_the_lines_that_stay():
    now, out = [0.0], Terminal()
    line = StatusLine(out, clock=lambda: now[0])
    line.show("one")
    line.show("two")
    now[0] = 1.0
    line.show("two")
    line.say("stays")
    line.show("two")
    line.clear()
    line.clear()
    assert out.getvalue() == f"{CLEAR}one{CLEAR}two{CLEAR}stays\n{CLEAR}two{CLEAR}"


def test_in_a_file_there_are_only_lines_that_stay():
    out = io.StringIO()
    line = StatusLine(out)
    line.show("one")
    line.say("stays")
    line.clear()
    assert out.getvalue() == "stays\n"


def test_only_python_writes_to_a_private_stderr():
    code = (
        "import os, sys; from antiphon.apps.status_line import private_stderr\n"
        "with private_stderr():\n"
        "    os.write(2, b'noise'); print('one', file=sys.stderr); os.write(2, b'noise')\n"
        "os.write(2, b'two')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stderr == b"one\ntwo"


def test_a_stderr_that_goes_elsewhere_stays_there(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    with private_stderr():
        print("one", file=sys.stderr)
    assert out.getvalue() == "one\n"
    assert os.fstat(2)
