"""`export`: what it hands over, what it says, and what is missing."""

import subprocess
import sys
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile

from antiphon.apps import cli
from antiphon.export import pipeline
from antiphon.export.journal import Journal
from antiphon.export.pipeline import Settings
from antiphon.export.writer import partial_folder
from antiphon.runtime.errors import CorruptFile

MANIFEST = SimpleNamespace(
    name="nano", files=[SimpleNamespace(size_bytes=1_500_000)], engines={"trunk": None}
)


@pytest.fixture
def exported(monkeypatch):
    """Settings of every export that is asked for; none is made."""
    calls = []

    def export(checkpoint, out, *, progress, **settings):
        calls.append((checkpoint, out, settings))
        progress.step("encoder", 0, 2)
        progress.advance(5, 10)
        progress.note("by the way")
        progress.step("trunk", 1, 2)
        return MANIFEST

    monkeypatch.setattr(pipeline, "export", export)
    return calls


def test_a_checkpoint_is_exported_with_its_progress(exported, capsys, tmp_path):
    places = (tmp_path / "in", tmp_path / "out")
    argv = ["export", *map(str, places)]
    assert cli.main(argv) == 0
    assert capsys.readouterr() == (
        f"{places[1]}: nano, 1.5 MB, 1 engines\n",
        "1/2 encoder\nby the way\n2/2 trunk\n",
    )
    assert cli.main([*argv, "--weights", "a b.toml", "--noise-frames", "99", "--no-parity"]) == 0
    assert cli.main([*argv, "--jobs", "3", "--target", "cpu", "--kv", "int8"]) == 0
    defaults = asdict(Settings()) | {"voices": {}}
    assert exported == [
        (*places, defaults),
        (*places, defaults | {"weights": "a b.toml", "noise_frames": 99, "parity": False}),
        (*places, defaults | {"jobs": 3, "kv": "int8"}),
    ]


def test_voices_are_read_before_anything_else(exported, tmp_path):
    for name in ("ä.wav", "b=c.wav"):
        soundfile.write(tmp_path / name, np.full(24_000 * 4, 0.1), 24_000)
    words = [f"--voice=anna={tmp_path / 'ä.wav'}", f"--voice=ben={tmp_path / 'b=c.wav'}"]
    assert cli.main(["export", "in", "out", *words]) == 0
    voices = exported[0][2]["voices"]
    assert list(voices) == ["anna", "ben"]
    assert (voices["ben"].rate_hz, len(voices["ben"].pcm)) == (24_000, 24_000 * 4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--voice=anna=absent.wav"], "absent.wav"),
        (["--voice=anna=a.wav", "--voice=anna=b.wav"], "names one voice twice: anna, anna"),
    ],
)
def test_a_voice_that_cannot_be_read_is_refused(words, message, exported, capsys):
    assert cli.main(["export", "in", "out", *words]) == 1
    assert message in capsys.readouterr().err
    assert exported == []


@pytest.mark.parametrize(
    "words", [["--voice", "anna"], ["--voice", "=a.wav"], ["--voice", "anna="], ["--jobs", "0"]]
)
def test_a_mistake_in_an_option_is_explained(words, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["export", "in", "out", *words])
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


@pytest.mark.parametrize("finished", [True, False])
def test_an_interrupted_export_says_what_was_finished(finished, monkeypatch, capsys, tmp_path):
    def export(*_, **__):
        folder = partial_folder(tmp_path / "out")
        folder.mkdir()
        if finished:
            Journal(folder, {"encoder": "a"}).finish("encoder")
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "export", export)
    assert cli.main(["export", "in", str(tmp_path / "out")]) == 130
    kept = "encoder finished; the same command goes on from there"
    said = kept if finished else "nothing was finished yet"
    assert capsys.readouterr() == ("", f"antiphon: interrupted; {said}\n")


@pytest.mark.parametrize(
    "error", [CorruptFile("no such tensor"), PermissionError(13, "Permission denied", "out")]
)
def test_a_failed_export_is_one_line(error, monkeypatch, capsys):
    def export(*_, **__):
        raise error

    monkeypatch.setattr(pipeline, "export", export)
    assert cli.main(["export", "in", "out"]) == 1
    assert capsys.readouterr() == ("", f"antiphon: {error}\n")


def test_a_missing_checkpoint_is_named(tmp_path, capsys):
    assert cli.main(["export", str(tmp_path / "in"), str(tmp_path / "out")]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"antiphon: {tmp_path / 'in'}")
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tool_is_named_with_its_extra():
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from antiphon.apps import cli; sys.exit(cli.main(['export', 'in', 'out']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "antiphon: exporting needs torch; install it: pip install 'antiphon[export]'\n"
    )
