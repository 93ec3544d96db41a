"""Changing the voices of a bundle: right afterwards, and unharmed whatever goes wrong."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_bundle import CODES, MEL, file_entry, write_bundle, write_manifest

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.bundle_files import Voice
from antiphon.runtime.errors import AntiphonError, BundleError, ConfigError, CorruptFile
from antiphon.runtime.voice_files import add_voice, remove_voice, save_manifest, set_default_voice


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("bundle") / "tiny")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "ein Bündel"))


def voice(codes: int = 10, seed: int = 1) -> Voice:
    rng = np.random.default_rng(seed)
    return Voice(
        prompt_codes=rng.integers(0, CODES, codes),
        prompt_mel=rng.standard_normal((MEL, 4 * codes), np.float32),
        embedding=rng.standard_normal(6, np.float32),
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def unharmed(folder: Path) -> Iterator[None]:
    """The bundle is, to the byte and the file, what it was before the test."""
    before = contents(folder)
    yield
    assert contents(folder) == before
    Bundle.open(folder)


def test_an_added_voice_is_the_one_that_was_made(folder: Path) -> None:
    made = voice()
    manifest = add_voice(folder, "Eve-2.b", made)
    bundle = Bundle.open(folder)
    assert bundle.manifest == manifest
    assert bundle.voices == ["anna", "Eve-2.b"]
    assert bundle.manifest.voices["Eve-2.b"] == file_entry(folder, "voices/Eve-2.b.npz")
    found = bundle.voice("Eve-2.b")
    for field in ("prompt_codes", "prompt_mel", "embedding"):
        np.testing.assert_array_equal(getattr(found, field), getattr(made, field))


def test_nothing_else_of_the_manifest_changes(folder: Path) -> None:
    raw = json.loads((folder / "manifest.json").read_text())
    add_voice(folder, "eve", voice())
    now = json.loads((folder / "manifest.json").read_text())
    assert list(now) == list(raw)
    assert now | {"voices": raw["voices"]} == raw
    remove_voice(folder, "eve")
    assert json.loads((folder / "manifest.json").read_text()) == raw
    assert sorted(path.name for path in (folder / "voices").iterdir()) == ["anna.npz"]


def test_the_default_is_the_first(folder: Path) -> None:
    add_voice(folder, "eve", voice(), default=True)
    assert Bundle.open(folder).voices == ["eve", "anna"]
    assert len(Bundle.open(folder).voice().prompt_codes) == 10
    set_default_voice(folder, "anna")
    assert Bundle.open(folder).voices == ["anna", "eve"]
    set_default_voice(folder, "anna")
    assert Bundle.open(folder).voices == ["anna", "eve"]


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", ["", "../eve", ".eve", "e/v", "é", "a" * 97, "eve\n", "-", "a b"])
def test_a_name_that_leaves_the_bundle_or_confuses_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="cannot name a voice; use at most 90 letters"):
        add_voice(folder, name, voice())


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("name", ["anna", "ANNA"])
def test_a_name_that_is_taken_is_refused(folder: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="there is a voice 'anna' already; remove it first"):
        add_voice(folder, name, voice())


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize("change", [remove_voice, set_default_voice])
def test_an_unknown_name_is_refused(folder: Path, change) -> None:
    with pytest.raises(ConfigError, match="no voice 'eve' here; choose one of anna"):
        change(folder, "eve")


@pytest.mark.usefixtures("unharmed")
def test_the_last_voice_stays(folder: Path) -> None:
    with pytest.raises(ConfigError, match="'anna' is the only voice, and a bundle needs one"):
        remove_voice(folder, "anna")


def test_the_default_voice_stays_until_another_is(folder: Path) -> None:
    add_voice(folder, "eve", voice())
    with pytest.raises(ConfigError, match="is the default voice; choose another one first"):
        remove_voice(folder, "anna")
    set_default_voice(folder, "eve")
    remove_voice(folder, "anna")
    assert Bundle.open(folder).voices == ["eve"]


@pytest.mark.usefixtures("unharmed")
@pytest.mark.parametrize(
    ("made", "said"),
    [
        (Voice(voice().prompt_codes, voice(5).prompt_mel, voice().embedding), "prompt_mel is"),
        (Voice(voice().prompt_codes + CODES, voice().prompt_mel, voice().embedding), "codes outs"),
        (Voice(voice().prompt_codes, voice().prompt_mel * np.float32("nan"), np.ones(6, "f4")),
         "not finite"),
    ],
)  # fmt: skip
def test_a_voice_that_does_not_fit_is_not_added(folder: Path, made: Voice, said: str) -> None:
    with pytest.raises(CorruptFile, match=said):
        add_voice(folder, "eve", made)


def test_a_file_that_two_voices_share_is_kept(folder: Path) -> None:
    add_voice(folder, "eve", voice())
    raw = json.loads((folder / "manifest.json").read_text())
    raw["voices"]["twin"] = raw["voices"]["eve"]
    write_manifest(folder, raw)
    remove_voice(folder, "twin")
    assert Bundle.open(folder).voices == ["anna", "eve"]


def test_links_are_not_followed_out_of_the_bundle(folder: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("mine")
    for name in ("voices/eve.npz", "voices/.eve.npz.partial", ".manifest.json.partial"):
        (folder / name).symlink_to(secret)
    add_voice(folder, "eve", voice())
    assert secret.read_text() == "mine"
    Bundle.open(folder)
    (folder / "voices").rename(tmp_path / "elsewhere")
    (folder / "voices").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    with pytest.raises(CorruptFile, match="voices is a link"):
        add_voice(folder, "zoe", voice())
    assert not (tmp_path / "elsewhere" / "zoe.npz").exists()


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    for change in (remove_voice, set_default_voice):
        with pytest.raises(BundleError, match="no bundle here"):
            change(tmp_path, "anna")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_the_folder_should_be(folder: Path) -> None:
    add_voice(folder, "eve", voice())
    manifest = (folder / "manifest.json").read_bytes()
    shutil.rmtree(folder / "voices")
    (folder / "voices").write_text("")
    with pytest.raises(BundleError, match=r"cannot be changed \(File exists\); copy the bundle"):
        add_voice(folder, "zoe", voice())
    assert (folder / "manifest.json").read_bytes() == manifest


@pytest.fixture
def readable_only(pristine: Path) -> Iterator[Path]:
    """A bundle of somebody else: who runs the test may read it, but not write."""
    nobody, root = 65_534, os.geteuid() == 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(shutil.copytree(pristine, Path(place) / "tiny"))
        Path(place).chmod(0o755)
        for path in (folder, folder / "voices"):
            path.chmod(0o555)
        if root:  # whom no permission stops
            os.seteuid(nobody)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for path in (folder, folder / "voices"):
                path.chmod(0o755)


def test_a_bundle_that_may_only_be_read(readable_only: Path) -> None:
    before = contents(readable_only)
    with pytest.raises(BundleError, match=r"cannot be changed \(Permission denied\); copy the bun"):
        add_voice(readable_only, "eve", voice())
    with pytest.raises(BundleError, match="Permission denied"):
        set_default_voice(readable_only, "anna")
    assert contents(readable_only) == before


MAKE_VOICE = """
import os, signal, sys
from pathlib import Path
import numpy as np
from antiphon.runtime import voice_files
from antiphon.runtime.bundle_files import Voice
folder, codes = Path(sys.argv[1]), np.arange(5)
voice = Voice(codes, np.zeros(({mel}, 20), np.float32), np.ones(6, np.float32))
"""
DIE = """
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def python(code: str, folder: Path) -> subprocess.Popen[bytes]:
    code = MAKE_VOICE.format(mel=MEL) + code
    return subprocess.Popen([sys.executable, "-c", code, str(folder)])


@pytest.mark.parametrize(
    ("moment", "act", "left"),
    [
        ("read_voice", "add_voice(folder, 'eve', voice)", ["anna", "zoe"]),  # the file half done
        ("save_manifest", "add_voice(folder, 'eve', voice)", ["anna", "zoe"]),  # not named yet
        ("Path.replace", "remove_voice(folder, 'zoe')", ["anna", "zoe"]),  # not in its place yet
        ("suppress", "remove_voice(folder, 'zoe')", ["anna"]),  # the file still there
    ],
)
def test_a_killed_change_leaves_a_whole_bundle(
    folder: Path, moment: str, act: str, left: list[str]
) -> None:
    add_voice(folder, "zoe", voice())
    code = f"{DIE}\nvoice_files.{moment} = die\nvoice_files.{act}"
    assert python(code, folder).wait() == -9
    assert Bundle.open(folder).voices == left
    for name in ("eve", "zoe"):  # what was left over is in nobody's way
        if name not in left:
            add_voice(folder, name, voice(15))
    remove_voice(folder, "zoe")
    assert len(Bundle.open(folder).voice("eve").prompt_codes) == 15
    assert sorted(path.name for path in (folder / "voices").iterdir()) == ["anna.npz", "eve.npz"]


def test_two_programs_at_once_lose_nothing(folder: Path) -> None:
    code = "for i in range(5): voice_files.add_voice(folder, f'{who}{{i}}', voice)"
    running = [python(code.format(who=who), folder) for who in ("a", "b")]
    assert [process.wait() for process in running] == [0, 0]
    expected = {"anna", *(f"{who}{i}" for who in "ab" for i in range(5))}
    assert set(Bundle.open(folder).voices) == expected


NAMES = st.sampled_from(["anna", "eve", "Eve", "zoe"])
ACTIONS = st.one_of(
    st.tuples(st.just("add"), NAMES, st.booleans()),
    st.tuples(st.sampled_from(["remove", "default"]), NAMES),
)


@settings(max_examples=8)
@given(actions=st.lists(ACTIONS, min_size=3, max_size=6))
def test_any_sequence_of_changes_leaves_a_whole_bundle(pristine: Path, actions) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder, known = Path(shutil.copytree(pristine, Path(place) / "b")), ["anna"]
        for action, name, *default in actions:
            try:
                if action == "add":
                    add_voice(folder, name, voice(5), default=default[0])
                    known = [name, *known] if default[0] else [*known, name]
                elif action == "remove":
                    remove_voice(folder, name)
                    known.remove(name)
                else:
                    set_default_voice(folder, name)
                    known = [name, *(other for other in known if other != name)]
            except AntiphonError:
                pass
        bundle = Bundle.open(folder)
        assert bundle.voices == known
        assert {path.name for path in (folder / "voices").iterdir()} == {f"{n}.npz" for n in known}


def test_a_saved_manifest_is_the_one_given(folder: Path) -> None:
    manifest = Bundle.open(folder).manifest
    before = (folder / "manifest.json").stat().st_ino
    save_manifest(manifest, folder)
    assert Bundle.open(folder).manifest == manifest
    assert (folder / "manifest.json").stat().st_ino != before  # another file in its place
