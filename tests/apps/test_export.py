"""`export`: what it hands over, what it says, and what is missing."""

import subprocess
import sys
from types import SimpleNamespace

import pytest

from antiphon.apps import cli
from antiphon.export import pipeline
from antiphon.export.reference.flow import NOISE_FRAMES
from antiphon.runtime.errors import CorruptFile


def test_a_checkpoint_is_exported_with_its_progress(monkeypatch, capsys, tmp_path):
    calls = []

    def export(checkpoint, out, *, weights, target, noise_frames, progress):
        calls.append((checkpoint, out, weights, target, noise_frames))
        progress("encoder", 0, 2)
        progress("trunk", 1, 2)
        files = [SimpleNamespace(size_bytes=1_500_000)]
        return SimpleNamespace(name="nano", files=files, engines={"trunk": None})

    monkeypatch.setattr(pipeline, "export", export)
    argv = ["export", str(tmp_path / "in"), str(tmp_path / "out")]
    assert cli.main(argv) == 0
    assert capsys.readouterr() == (
        f"{tmp_path / 'out'}: nano, 1.5 MB, 1 engines\n",
        "1/2 encoder\n2/2 trunk\n",
    )
    assert cli.main([*argv, "--weights", "fp32", "--noise-frames", "99"]) == 0
    places = (tmp_path / "in", tmp_path / "out")
    assert calls == [(*places, "int8", "cpu", NOISE_FRAMES), (*places, "fp32", "cpu", 99)]


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
        "antiphon: exporting needs torch; install the tools: pip install 'antiphon[export]'\n"
    )
