"""What a stopped export finished is kept; what is half-written, changed or outdated is not."""

import json
import os

import pytest

from antiphon.export import journal
from antiphon.export.journal import Journal, finished_parts, identity
from antiphon.export.writer import JOURNAL

KEYS = {"encoder": "a", "trunk": "b", "parity": "c"}


def begin(folder, keys=KEYS):
    return Journal(folder, keys)


@pytest.fixture
def folder(tmp_path):
    """Two finished parts, one half-written file, strangers."""
    found = begin(tmp_path)
    for name in ("encoder.onnx", "encoder.data", "trunk.onnx"):
        (tmp_path / name).write_text(f"whole {name}")
    found.finish("encoder", [tmp_path / "encoder.onnx", tmp_path / "encoder.data"])
    found.finish("parity", measures={"encoder": {"code_agreement": 1.0}})
    (tmp_path / "voices").mkdir()
    (tmp_path / "voices" / "anna.npz").write_text("half")
    (tmp_path / f"{JOURNAL}.new").write_text("{")
    return tmp_path


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_is_finished_is_found_again(folder):
    found = begin(folder)
    assert sorted(found.parts) == ["encoder", "parity"] == finished_parts(folder)
    assert found.parts["parity"].measures == {"encoder": {"code_agreement": 1.0}}
    assert sorted(found.files) == ["encoder.data", "encoder.onnx"]
    assert found.nbytes == len("whole encoder.onnx") + len("whole encoder.data")
    assert found.outdated == []


def test_everything_else_is_removed(folder):
    begin(folder)
    assert names(folder) == ["encoder.data", "encoder.onnx", JOURNAL]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "encoder.data").write_text("flipped encoder.dat"),
        lambda folder: (folder / "encoder.data").write_text("whole"),
        lambda folder: (folder / "encoder.onnx").unlink(),
    ],
)
def test_a_part_with_a_changed_file_is_made_again(damage, folder):
    damage(folder)
    found = begin(folder)
    assert sorted(found.parts) == ["parity"]
    assert found.outdated == ["encoder"]
    assert names(folder) == [JOURNAL]


@pytest.mark.parametrize("keys", [KEYS | {"encoder": "other"}, {"trunk": "b", "parity": "c"}])
def test_a_part_made_otherwise_is_made_again(keys, folder):
    found = begin(folder, keys)
    assert sorted(found.parts) == ["parity"]
    assert found.outdated == ["encoder"]


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"encoder": 3}', '{"encoder": {"key": "a", "files": 5}}', "\xff"]
)
def test_a_journal_that_cannot_be_read_notes_nothing(text, folder):
    (folder / JOURNAL).write_text(text, encoding="latin-1")
    assert begin(folder).parts == {}
    assert names(folder) == []


def test_a_journal_cannot_name_files_outside(folder):
    raw = json.loads((folder / JOURNAL).read_text())
    raw["encoder"]["files"][0]["file"] = "../../precious"
    (folder / JOURNAL).write_text(json.dumps(raw))
    assert begin(folder).parts == {}


def test_a_part_is_noted_only_once_its_files_are_hashed(folder, monkeypatch):
    found = begin(folder)
    (folder / "trunk.onnx").write_text("new")

    def fail(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(journal, "file_entry", fail)
    with pytest.raises(KeyboardInterrupt):
        found.finish("trunk", [folder / "trunk.onnx"])
    assert finished_parts(folder) == ["encoder", "parity"]


def test_an_identity_changes_with_any_file(tmp_path):
    (tmp_path / "a").mkdir()
    for name in ("a/x", "y"):
        (tmp_path / name).write_text(name)
    seen = [identity(tmp_path)]
    assert [entry[:2] for entry in seen[0]] == [("a/x", 3), ("y", 1)]
    os.utime(tmp_path / "y", ns=(1, 1))
    seen.append(identity(tmp_path))
    (tmp_path / "a" / "x").write_text("longer")
    seen.append(identity(tmp_path))
    (tmp_path / "z").write_text("")
    seen.append(identity(tmp_path))
    assert len({json.dumps(entry) for entry in seen}) == 4


def test_a_key_changes_with_the_facts_and_with_the_program(tmp_path, monkeypatch):
    assert journal.digest(1, ["a"]) == journal.digest(1, ["a"])
    assert journal.digest(1) != journal.digest(2)
    before = journal.digest(1)
    (tmp_path / "new.py").write_text("x = 1")
    monkeypatch.setattr(journal, "_CODE", (tmp_path,))
    assert journal.digest(1) != before
