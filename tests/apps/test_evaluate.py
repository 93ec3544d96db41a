"""`eval` and `sensitivity` from end to end, on a random model."""

import json
import shutil

import numpy as np
import pytest
import soundfile

from antiphon.apps import cli, evaluate
from antiphon.export.proof import sound


@pytest.fixture(autouse=True)
def _nobody_listens(monkeypatch):
    """The listener takes longer than all else here."""
    monkeypatch.setattr(sound, "PACKAGE", "antiphon_no_such_package")


@pytest.fixture
def questions(tmp_path):
    folder = tmp_path / "asked"
    folder.mkdir()
    noise = 0.1 * np.random.default_rng(0).standard_normal(4000)
    soundfile.write(folder / "q.wav", noise, 16000)
    return folder


@pytest.fixture
def bundle(bundle_folder, tmp_path):
    return shutil.copytree(bundle_folder, tmp_path / "bundle")


def run(*argv) -> int:
    return cli.main([str(word) for word in argv])


def test_tables_json_page_and_digest(bundle, bundle_folder, questions, tmp_path, capsys):
    (questions / "q.txt").write_text("Why?")
    files = ["--json", tmp_path / "o.json", "--html", tmp_path / "o.html", "--svg", tmp_path]
    asked = ["--against", bundle_folder, "--questions", questions]
    assert run("eval", bundle, *asked, *files) == 0
    out, err = capsys.readouterr()
    for word in ("Heads and codes", "speech head", "100.00 %", "flow_step", "ran to the limit"):
        assert word in out
    assert "takes the package" in out
    assert err.splitlines()[-1] == "2/2 1 questions"
    found = json.loads((tmp_path / "o.json").read_text())
    assert found["heads"]["text"]["agreement"]["mean"] == 1
    assert len(found["exchanges"]) == 4
    assert {"kl.svg", "ends.svg", "bytes.svg"} < {path.name for path in tmp_path.iterdir()}
    assert (tmp_path / "o.html").read_text().startswith("<!doctype html>")
    quality = json.loads((bundle / "manifest.json").read_text())["quality"]
    assert quality["against"] == "fp32"
    assert run("info", bundle) == 0
    assert "speech agreement 1.0" in capsys.readouterr().out
    assert run("verify", bundle) == 0


def test_without_a_reference_nothing_is_compared(bundle, questions, capsys):
    before = (bundle / "manifest.json").read_bytes()
    assert run("eval", bundle, "--questions", questions) == 0
    assert "Heads and codes" not in capsys.readouterr().out
    assert (bundle / "manifest.json").read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--questions", "{tmp}/nowhere"], "no folder of recordings"),
        (["--questions", "{tmp}/bundle"], "no wav or flac recording here"),
        ([], "no folder of recordings"),  # this bundle has no questions
        (["--against", "{tmp}"], "asked"),  # neither a bundle nor a checkpoint
        (["--json", "{tmp}"], "cannot be written"),
        (["--html", "{tmp}/a/b.html"], "there is no folder"),
        (["--svg", "{tmp}/bundle/manifest.json"], "cannot be written"),
    ],
)
def test_mistakes_are_explained_before_the_work(argv, said, bundle, questions, tmp_path, capsys):
    if "--questions" not in argv and argv:
        argv = [*argv, "--questions", str(questions)]
    assert run("eval", bundle, *(word.format(tmp=tmp_path) for word in argv)) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines()[-1].startswith("antiphon: ")
    assert said in err or "MOSS-Speech" in err


def test_a_bundle_that_cannot_be_changed_is_evaluated_all_the_same(monkeypatch, tmp_path, capsys):
    evaluate._record(tmp_path / "gone", {"against": "fp32"})
    assert "note: the digest is not recorded" in capsys.readouterr().err


def test_sensitivity(bundle_folder, questions, tmp_path, capsys):
    checkpoint = bundle_folder.parent / "checkpoint"
    (questions / "q.txt").write_text("Why?")
    asked = ["--bundle", bundle_folder, "--questions", questions, "--json", tmp_path / "s.json"]
    assert run("sensitivity", checkpoint, *asked, "--scheme", "int4_b32") == 0
    out, _ = capsys.readouterr()
    assert "speech_branch head" in out
    found = json.loads((tmp_path / "s.json").read_text())
    assert [loss["part"] in out and loss["match"] in out for loss in found] == [True] * 9
    assert run("sensitivity", checkpoint, *asked, "--scheme", "int4_b128") == 1
    assert "blocks of 64" in capsys.readouterr().err


def test_sensitivity_asks_a_bundle_of_the_same_checkpoint(bundle, bundle_folder, questions, capsys):
    raw = json.loads((bundle / "manifest.json").read_text())
    raw["lm"]["rope_theta"] = 3e4
    (bundle / "manifest.json").write_text(json.dumps(raw))
    asked = ["--bundle", bundle, "--questions", questions, "--scheme", "int8"]
    assert run("sensitivity", bundle_folder.parent / "checkpoint", *asked) == 1
    assert "was not made from" in capsys.readouterr().err
    assert run("sensitivity", bundle, *asked) == 1  # no checkpoint
    assert "MOSS-Speech" in capsys.readouterr().err
