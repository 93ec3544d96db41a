"""A bundle's folder: whole or absent, one export at a time, nothing left behind."""

from pathlib import Path

import pytest

from antiphon.export import writer
from antiphon.runtime.errors import BundleError


def test_what_a_killed_export_left_is_removed(tmp_path):
    (tmp_path / ".out.partial" / "voices").mkdir(parents=True)
    (tmp_path / ".out.partial" / "trunk.data").write_text("gigabytes")
    with writer.new_bundle(tmp_path / "out", 0) as folder:
        assert folder == tmp_path / ".out.partial"
        assert list(folder.iterdir()) == []
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("newer", [True, False])
def test_an_interrupted_swap_is_undone_or_finished(newer, tmp_path):
    for name in (".out.old", "out") if newer else (".out.old",):
        (tmp_path / name).mkdir()
        (tmp_path / name / "manifest.json").write_text(name)
    with pytest.raises(KeyboardInterrupt), writer.new_bundle(tmp_path / "out", 0):
        raise KeyboardInterrupt
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    kept = (tmp_path / "out" / "manifest.json").read_text()
    assert kept == ("out" if newer else ".out.old")


def test_two_exports_to_one_folder_do_not_mix(tmp_path):
    with writer.new_bundle(tmp_path / "out", 0) as folder:
        (folder / "manifest.json").write_text("{}")
        busy = pytest.raises(BundleError, match="another export is writing there")
        with busy, writer.new_bundle(tmp_path / "out", 0):
            pass
        assert (folder / "manifest.json").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_in_the_way_of_the_partial_folder_is_explained(tmp_path):
    (tmp_path / ".out.partial").write_text("mine")
    with (
        pytest.raises(BundleError, match="expected to write there"),
        writer.new_bundle(tmp_path / "out", 0),
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
    with pytest.raises(OSError, match="disk on fire"), writer.new_bundle(tmp_path / "out", 0):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "manifest.json").read_text() == "old"


def test_an_empty_folder_may_become_a_bundle(tmp_path):
    (tmp_path / "out").mkdir()
    with writer.new_bundle(tmp_path / "out", 0) as folder:
        (folder / "manifest.json").write_text("{}")
    assert (tmp_path / "out" / "manifest.json").exists()
