"""A bundle's folder: whole or absent, one export at a time, nothing left behind."""

from pathlib import Path

import numpy as np
import pytest

from antiphon.export import writer
from antiphon.export.graph import GraphBuilder
from antiphon.runtime.errors import BundleError, CapacityError, CorruptFile


def test_what_is_written_takes_its_place_as_a_whole(tmp_path):
    with writer.new_bundle(tmp_path / "out") as folder:
        assert folder == writer.partial_folder(tmp_path / "out") == tmp_path / ".out.partial"
        (folder / "manifest.json").write_text("{}")
        (folder / writer.JOURNAL).write_text("{}")
        assert not (tmp_path / "out").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["manifest.json"]


def interrupted(folder, journal):
    (folder / "trunk.data").write_text("gigabytes")
    if journal:
        (folder / writer.JOURNAL).write_text("{}")
    raise KeyboardInterrupt


@pytest.mark.parametrize("journal", [True, False])
def test_an_error_leaves_only_what_has_a_journal(journal, tmp_path):
    folder = writer.partial_folder(tmp_path / "out")
    with pytest.raises(KeyboardInterrupt), writer.new_bundle(tmp_path / "out"):
        interrupted(folder, journal)
    assert [path.name for path in tmp_path.iterdir()] == ([".out.partial"] if journal else [])
    if journal:
        with writer.new_bundle(tmp_path / "out") as folder:
            assert (folder / "trunk.data").read_text() == "gigabytes"


@pytest.mark.parametrize("newer", [True, False])
def test_an_interrupted_swap_is_undone_or_finished(newer, tmp_path):
    for name in (".out.old", "out") if newer else (".out.old",):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    with pytest.raises(KeyboardInterrupt), writer.new_bundle(tmp_path / "out"):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    kept = (tmp_path / "out" / "manifest.json").read_text()
    assert kept == ("out" if newer else ".out.old")


def test_two_exports_to_one_folder_do_not_mix(tmp_path):
    with writer.new_bundle(tmp_path / "out") as folder:
        (folder / "manifest.json").write_text("{}")
        busy = pytest.raises(BundleError, match="another export is writing there")
        with busy, writer.new_bundle(tmp_path / "out"):
            pass
        assert (folder / "manifest.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_of_the_partial_folder_is_explained(tmp_path):
    (tmp_path / ".out.partial").write_text("mine")
    with (
        pytest.raises(BundleError, match="expected to write there"),
        writer.new_bundle(tmp_path / "out"),
    ):
        pass


def test_a_swap_that_fails_is_undone(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "manifest.json").write_text("old")
    rename = Path.rename

    def failing(self, target):
        if self.suffix == ".partial":
            raise OSError("disk on fire")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="disk on fire"), writer.new_bundle(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "manifest.json").read_text() == "old"


def test_an_empty_folder_may_become_a_bundle(tmp_path):
    (tmp_path / "out").mkdir()
    with writer.new_bundle(tmp_path / "out") as folder:
        (folder / "manifest.json").write_text("{}")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_room_is_what_the_disk_says(tmp_path):
    writer.check_room(tmp_path, 0)
    writer.check_room(tmp_path, -5)
    with pytest.raises(
        CapacityError, match="MB free, the bundle needs up to 1,000,000,000,000 MB more"
    ):
        writer.check_room(tmp_path, 10**18)


def test_a_graph_whose_weights_are_elsewhere_is_refused(tmp_path):
    g = GraphBuilder(tmp_path / "g.onnx")
    x = g.input("x", np.float32, [400])
    g.output("y", np.float32, [400], g.op("Add", x, g.const("c", np.ones(400, np.float32))))
    path = g.save()
    data = path.with_suffix(".data")
    files = {p.name: writer.file_entry(p, tmp_path) for p in (path, data)}
    entry = writer.engine_entry(path, files, "fp32", {})
    assert (entry.file.file, entry.data[0].size_bytes) == ("g.onnx", 1600)
    del files["g.data"]
    with pytest.raises(CorruptFile, match=r"g\.onnx: its weights are said to be in 'g\.data'"):
        writer.engine_entry(path, files, "fp32", {})
