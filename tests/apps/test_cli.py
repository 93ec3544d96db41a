"""The command line: usage, exit codes, one line for each error."""

import os
import re
import subprocess
import sys

import pytest

from antiphon.apps import cli, parser
from antiphon.runtime.errors import AntiphonError, CapacityError, CorruptFile


def usage_error(capsys, *argv) -> str:
    with pytest.raises(SystemExit) as caught:
        cli.main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ([], "required: COMMAND"),
        (["sing"], "invalid choice: 'sing'"),
        (["reply"], "expected QUESTION.wav and REPLY.wav, got none"),
        (["reply", "q.wav"], "expected QUESTION.wav and REPLY.wav, got q.wav"),
        (["reply", "q.wav", "r.wav", "s.wav"], "expected QUESTION.wav and REPLY.wav"),
        (["reply", "q.wav", "r.wav", "--text-reply"], "expected QUESTION.wav, got q.wav r.wav"),
        (["reply", "--text", "hi", "q.wav", "r.wav"], "expected REPLY.wav, got q.wav r.wav"),
        (["reply", "--text", "hi", "--text-reply", "r.wav"], "expected no file, got r.wav"),
        (["reply", "--text", " ", "r.wav"], "an empty question"),
        (["reply", "q.wav", "r.wav", "--loud"], "unknown: --loud"),
        (["reply", "q.wav", "r.wav", "--seed", "-1"], "whole number from 0, got '-1'"),
        (["reply", "q.wav", "r.wav", "--seed", "x"], "whole number from 0, got 'x'"),
        (["reply", "q.wav", "r.wav", "--top-k", "0"], "whole number from 1"),
        (["reply", "q.wav", "r.wav", "--top-p", "1.5"], "at most 1"),
        (["reply", "q.wav", "r.wav", "--temperature", "0"], "number above 0"),
        (["reply", "q.wav", "r.wav", "--temperature", "nan"], "number above 0"),
        (["reply", "q.wav", "r.wav", "--temperature", "hot"], "number above 0"),
        (["reply", "q.wav", "r.wav", "--threads", "0"], "whole number from 1"),
        (["devices", "x"], "unknown: x"),
        (["export", "in"], "required: BUNDLE"),
        (["export", "in", "out", "--target", "moon"], "invalid choice: 'moon'"),
    ],
)
def test_a_mistake_in_the_command_line_is_explained(argv, said, capsys):
    assert said in usage_error(capsys, *argv)


@pytest.mark.parametrize(
    ("argv", "question", "reply"),
    [
        ("reply q.wav r.wav", "q.wav", "r.wav"),
        ("reply q.wav --seed 3 r.wav", "q.wav", "r.wav"),
        ("reply --seed 3 q.wav --fast r.wav --json", "q.wav", "r.wav"),
        ("reply q.wav --text-reply", "q.wav", None),
        ("reply --text-reply q.wav", "q.wav", None),
        ("reply --text hello r.wav", None, "r.wav"),
        ("reply r.wav --text hello", None, "r.wav"),
        ("reply --text hello --text-reply", None, None),
    ],
)
def test_a_text_takes_the_place_of_a_file(argv, question, reply):
    args = parser.parse(argv.split())
    assert [args.question and str(args.question), args.reply and str(args.reply)] == [
        question,
        reply,
    ]


def test_every_command_is_there(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if not re.search(rf"\n    {name}\s", out)] == []
    for name in cli.COMMANDS:
        with pytest.raises(SystemExit) as caught:
            cli.main([name, "--help"])
        assert caught.value.code == 0
        assert f"antiphon {name}" in capsys.readouterr().out


def test_the_version_is_printed(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith("antiphon ")


def raising(monkeypatch, error):
    def command(args):
        raise error

    monkeypatch.setitem(cli.COMMANDS, "devices", command)
    return cli.main(["devices"])


@pytest.mark.parametrize("kind", [AntiphonError, CapacityError, CorruptFile, OSError])
def test_an_error_becomes_one_line_and_code_1(kind, monkeypatch, capsys):
    assert raising(monkeypatch, kind("too\n  long; cut it")) == 1
    assert capsys.readouterr() == ("", "antiphon: too long; cut it\n")


def test_an_interrupt_becomes_code_130(monkeypatch, capsys):
    assert raising(monkeypatch, KeyboardInterrupt()) == 130
    assert capsys.readouterr() == ("", "antiphon: interrupted\n")


def test_a_bug_keeps_its_traceback(monkeypatch):
    with pytest.raises(ZeroDivisionError):
        raising(monkeypatch, ZeroDivisionError())


def test_the_default_bundle_may_be_named_in_the_environment(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(parser.BUNDLE_VARIABLE, str(tmp_path / "mine"))
    assert cli.main(["info"]) == 1
    assert "mine: no bundle here" in capsys.readouterr().err


def test_a_missing_default_bundle_is_explained(monkeypatch, tmp_path, capsys):
    import importlib.resources

    monkeypatch.delenv(parser.BUNDLE_VARIABLE, raising=False)
    monkeypatch.setattr(importlib.resources, "files", lambda package: tmp_path)
    for command in (["info"], ["verify"], ["demo"], ["reply", "q.wav", "r.wav"], ["talk"]):
        assert cli.main(command) == 1
        err = capsys.readouterr().err
        assert err.startswith("antiphon: this installation has no bundled model")
        assert err.count("\n") == 1


HEAVY = ["numpy", "onnxruntime", "soundfile", "sounddevice", "tokenizers", "logging", "json"]
LIGHT = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY}))  # importing any of them fails
from antiphon.apps import cli
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.parametrize("argv", [["--help"], ["reply", "--help"]])
def test_help_imports_nothing_heavy(argv):
    done = subprocess.run([sys.executable, "-c", LIGHT, *argv], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: antiphon")


def printing_into(out) -> tuple[int, str]:
    code = (
        "import sys; from antiphon.apps import cli\n"
        "cli.COMMANDS['devices'] = lambda args: print('x' * 100) or 0\n"
        "sys.exit(cli.main(['devices']))"
    )
    done = subprocess.run([sys.executable, "-c", code], stdout=out, stderr=subprocess.PIPE)
    return done.returncode, done.stderr.decode()


def test_a_closed_pipe_needs_no_words():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as out:
        assert printing_into(out) == (1, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_needs_one_line():
    with open("/dev/full", "wb") as out:
        code, err = printing_into(out)
    assert (code, err.count("\n")) == (1, 1)
    assert "No space left on device" in err
