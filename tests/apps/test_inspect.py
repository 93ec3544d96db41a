"""`inspect`: what it prints, and its exit code."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from antiphon.apps.cli import main

NANO = Path(__file__).parents[2] / "nano" / "checkpoint"
FLOW = "MOSS-Speech-Codec/flow/flow-chunk-5.pt"


@pytest.fixture
def folder(tmp_path):
    """nano's checkpoint, made of links."""
    copy = tmp_path / "nano 检查点"
    shutil.copytree(NANO, copy, copy_function=lambda a, b: Path(b).symlink_to(a))
    return copy


def test_a_whole_checkpoint(folder, capsys):
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == str(folder).split()
    assert ["file", "size", "tensors", "values", "stored", "as"] in lines
    assert next(line for line in lines if line[:1] == [FLOW])[3:] == ["261", "4,271,344", "F16"]
    assert ["MOSS-Speech-Codec/flow/campplus.onnx", "absent"] in lines
    assert ["voices:", "heart"] in lines
    assert any(line[:2] == ["language", "model"] for line in lines)
    assert any(line[:4] == ["8", "GB", "int4", "256"] for line in lines)
    assert lines[-1] == ["complete"]


def test_what_is_missing_or_wrong_is_said_and_the_code_is_1(folder, capsys):
    (folder / FLOW).unlink()
    config = folder / "MOSS-Speech" / "config.json"
    config.unlink()
    config.write_text("{")
    assert main(["inspect", str(folder)]) == 1
    out = capsys.readouterr().out
    assert [FLOW, "MISSING"] in [line.split() for line in out.splitlines()]
    assert f"\nmissing: {FLOW}\n" in out
    assert f"\nproblem: {config}: not readable as JSON" in out
    assert "complete" not in out
    assert "a graphics card holds" not in out  # without the sizes nothing can be said


def test_json(folder, capsys):
    assert main(["inspect", str(folder), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["complete"] is True
    assert facts["directory"] == str(folder)
    assert facts["fits"]["8"]["int4"][0]["way"] == {"host_embedding": False, "kv_bits": 16}
    assert {file["file"]: file["tensors"] for file in facts["files"]}[FLOW] == 261
    (folder / FLOW).unlink()
    assert main(["inspect", str(folder), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["missing"] == [FLOW]


def test_no_folder_is_an_error(tmp_path, capsys):
    assert main(["inspect", str(tmp_path / "absent")]) == 1
    assert "absent: no such folder" in capsys.readouterr().err


def test_a_missing_tool_is_named_with_its_extra(folder):
    code = (
        "import sys; sys.modules['torch'] = None; from antiphon.apps.cli import main; "
        f"sys.exit(main(['inspect', {str(folder)!r}]))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "inspecting needs torch" in run.stderr
    assert "antiphon[export]" in run.stderr
