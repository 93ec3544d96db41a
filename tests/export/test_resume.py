"""A stopped export goes on: what was finished stays, byte for byte, and nothing else does."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoint import make_checkpoint

from antiphon.export import engines, pipeline
from antiphon.export.journal import finished_parts
from antiphon.export.pipeline import export
from antiphon.export.writer import JOURNAL, partial_folder
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import BundleError, CapacityError
from antiphon.runtime.manifest import ENGINES

NOISE = 100
PARTS = [*ENGINES, "tables"]
RUN = """
import sys
from pathlib import Path
from antiphon.export.pipeline import export
from antiphon.export.progress import Silence

class Loud(Silence):
    def step(self, what, number, count):
        print(what, flush=True)
        if what == "flow_step":
            sys.stdin.read()  # until it is killed

export(Path(sys.argv[1]), Path(sys.argv[2]), noise_frames=100, parity=False, progress=Loud())
"""


class Told:
    """Progress that remembers and may be interrupted."""

    def __init__(self, until=None):
        self.until, self.steps, self.notes = until, [], []

    def step(self, what, number, count):
        if what == self.until:
            raise KeyboardInterrupt
        self.steps.append(what)

    def advance(self, done, total):
        pass

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture(scope="module")
def straight(checkpoint, tmp_path_factory):
    """The bundle of an export that was never stopped."""
    out = tmp_path_factory.mktemp("straight") / "out"
    export(checkpoint, out, noise_frames=NOISE, parity=False)
    return out


def run(checkpoint, out, until=None, **settings):
    """Export and return what was told; `until`: interrupt before that step."""
    told = Told(until)
    settings = {"noise_frames": NOISE, "parity": False} | settings
    if until is None:
        export(checkpoint, out, progress=told, **settings)
    else:
        with pytest.raises(KeyboardInterrupt):
            export(checkpoint, out, progress=told, **settings)
    return told


def assert_same(out, straight):
    names = {p.relative_to(straight) for p in straight.rglob("*") if p.is_file()}
    assert names == {p.relative_to(out) for p in out.rglob("*") if p.is_file()}
    for name in names:
        assert (out / name).read_bytes() == (straight / name).read_bytes(), name
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("until", ["trunk", "flow_step", "parity: not measured"])
def test_an_interrupted_export_goes_on(until, checkpoint, straight, tmp_path):
    out = tmp_path / "out"
    first = run(checkpoint, out, until)
    assert not out.exists()
    assert finished_parts(partial_folder(out)) == first.steps
    second = run(checkpoint, out)
    assert first.steps + second.steps == [*PARTS, "parity: not measured"]
    assert second.notes == [f"going on after an earlier export; finished: {', '.join(first.steps)}"]
    assert_same(out, straight)


def test_a_killed_export_goes_on(checkpoint, straight, tmp_path):
    out = tmp_path / "with space é" / "out"
    command = [sys.executable, "-c", RUN, str(checkpoint), str(out)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        for line in process.stdout:
            if line == "flow_step\n":
                break
        with pytest.raises(BundleError, match="another export is writing there"):
            run(checkpoint, out)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not out.exists()
    told = run(checkpoint, out)
    assert told.steps == ["flow_step", "vocoder", "tables", "parity: not measured"]
    assert_same(out, straight)


def test_a_half_written_engine_is_made_again(checkpoint, straight, tmp_path, monkeypatch):
    build = engines.build_branch

    def stopped(config, branch, read, kept, path, how):
        build(config, branch, read, kept, path, how)  # looks whole, was never noted
        raise KeyboardInterrupt

    monkeypatch.setattr(engines, "build_branch", stopped)
    with pytest.raises(KeyboardInterrupt):
        export(checkpoint, tmp_path / "out", noise_frames=NOISE, parity=False)
    partial = partial_folder(tmp_path / "out")
    assert (partial / "speech_branch.onnx").exists()
    (partial / "speech_branch.data").write_bytes(b"half")
    monkeypatch.undo()
    assert run(checkpoint, tmp_path / "out").steps[0] == "speech_branch"
    assert_same(tmp_path / "out", straight)


def test_a_damaged_engine_is_made_again(checkpoint, straight, tmp_path):
    out = tmp_path / "out"
    run(checkpoint, out, "text_branch")
    data = partial_folder(out) / "trunk.data"
    flipped = bytearray(data.read_bytes())
    flipped[100] ^= 1
    data.write_bytes(flipped)
    told = run(checkpoint, out)
    assert told.steps[:2] == ["trunk", "text_branch"]
    assert told.notes[0].startswith("trunk of an earlier export discarded: made with other settin")
    assert_same(out, straight)


def test_other_settings_begin_anew_where_they_matter(checkpoint, tmp_path):
    out = tmp_path / "out"
    run(checkpoint, out, "tables", weights="int8")
    recipe = tmp_path / "mine.toml"
    recipe.write_text(
        '[[rules]]\nmatch = "trunk/*"\nscheme = "int4_b32"\n'
        '[[rules]]\nmatch = "vocoder/*"\nscheme = "fp16"\n'
        '[[rules]]\nmatch = "*"\nscheme = "int8"\n'
    )
    told = run(checkpoint, out, "tables", weights=recipe)
    assert told.steps == ["trunk"]
    assert told.notes[0].startswith("trunk of an earlier export discarded")
    told = run(checkpoint, out, weights=recipe, noise_frames=50)
    assert told.steps == [*PARTS, "parity: not measured"]
    assert Bundle.open(out).manifest.engines["trunk"].scheme == "int4_b32"


def test_another_checkpoint_begins_anew(checkpoint, tmp_path):
    copy, out = shutil.copytree(checkpoint, tmp_path / "copy"), tmp_path / "out"
    run(copy, out, "flow_encoder")
    shard = next((copy / "MOSS-Speech").glob("*.safetensors"))
    os.utime(shard, ns=(1, 1))
    told = run(copy, out)
    assert told.notes[0].startswith("speech_branch, text_branch, trunk of an earlier export disca")
    assert "encoder" not in told.steps


def test_what_is_there_already_needs_no_room(checkpoint, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(checkpoint, out, "tables")
    asked = []
    monkeypatch.setattr(pipeline, "check_room", lambda folder, needed: asked.append(needed))
    run(checkpoint, out, "tables", noise_frames=NOISE)
    there = sum(p.stat().st_size for p in partial_folder(out).iterdir() if p.name != JOURNAL)
    shutil.rmtree(partial_folder(out))
    run(checkpoint, out, "trunk")
    assert asked[0] == asked[1] - there

    def full(folder, needed):
        raise CapacityError("full")

    monkeypatch.setattr(pipeline, "check_room", full)
    with pytest.raises(CapacityError):
        run(checkpoint, out)
    assert finished_parts(partial_folder(out)) == ["encoder"]


def test_parity_is_not_measured_twice(checkpoint, tmp_path, monkeypatch):
    measures, calls = {"trunk": {"sqnr_db": 40.0}}, []
    monkeypatch.setattr(pipeline, "measure", lambda *_: calls.append(1) or measures)
    monkeypatch.setattr(pipeline, "save_manifest", lambda *_: 1 / 0)
    out = tmp_path / "out"
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            run(checkpoint, out, parity=True)
    monkeypatch.undo()
    run(checkpoint, out, parity=True)
    assert calls == [1]
    assert Bundle.open(out).manifest.engines["trunk"].parity == {"sqnr_db": 40.0}


def test_the_number_of_threads_changes_no_byte(checkpoint, straight, tmp_path):
    run(checkpoint, tmp_path / "out", jobs=3)
    assert_same(tmp_path / "out", straight)


def test_a_folder_that_cannot_be_written_is_named(checkpoint, tmp_path):
    Path(tmp_path / "file").write_text("")
    with pytest.raises(BundleError, match=r"out\.partial: Not a directory, .*; choose another"):
        run(checkpoint, tmp_path / "file" / "out")
