"""What pip installs: four folders under one name, alternatives kept apart, versions pinned."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = {
    extra: [Requirement(line) for line in lines]
    for extra, lines in PROJECT["optional-dependencies"].items()
}
BASE = [Requirement(line) for line in PROJECT["dependencies"]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Copy what a wheel is built from, without the bundle."""
    copy = tmp_path_factory.mktemp("tree")
    for part in ("quant", "runtime", "export", "apps"):
        shutil.copytree(ROOT / part, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, copy / name)
    return copy


def build_wheel(tree: Path, out: Path) -> set[str]:
    """Build, and return the names of the files in the wheel."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(out)]
    subprocess.run(build, cwd=tree, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_wheel_holds_the_four_folders_under_one_name(tree, tmp_path):
    names = build_wheel(tree, tmp_path)
    sources = {
        f"antiphon/{path.relative_to(tree).as_posix()}"
        for part in ("quant", "runtime", "export", "apps")
        for path in (tree / part).rglob("*.py")
    }
    info = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    assert sources | {"antiphon/__init__.py", "antiphon/py.typed"} <= names
    assert {name.split("/")[0] for name in names - info} == {"antiphon"}
    assert {name.rsplit("/", 1)[-1] for name in info} >= {"LICENSE", "NOTICE", "entry_points.txt"}
    assert not any("nano" in name for name in names)


def test_wheel_ships_the_bundle_when_it_is_there(tree, tmp_path):
    bundle = tmp_path / "tree" / "nano" / "bundle"
    shutil.copytree(tree, tmp_path / "tree")
    (bundle / "voices").mkdir(parents=True)
    (bundle / "voices" / "a.npz").write_bytes(b"\0")
    unfinished = build_wheel(tmp_path / "tree", tmp_path / "first")
    (bundle / "manifest.json").write_text("{}")
    names = build_wheel(tmp_path / "tree", tmp_path / "second")
    assert names - unfinished == {
        "antiphon/nano_bundle/manifest.json",
        "antiphon/nano_bundle/voices/a.npz",
    }


def test_engine_libraries_are_alternatives():
    engines = {"onnxruntime", "onnxruntime-gpu"}
    assert not engines & {need.name for need in BASE}
    assert {need.name for need in EXTRAS["cpu"]} == {"onnxruntime"}
    assert {need.name for need in EXTRAS["cuda"]} == {"onnxruntime-gpu"}
    others = EXTRAS.keys() - {"cpu", "cuda"}
    assert not engines & {need.name for extra in others for need in EXTRAS[extra]}


@pytest.mark.parametrize("extra", ["base", *sorted(EXTRAS.keys() - {"cuda"})])
def test_every_direct_dependency_is_pinned(extra):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    versions = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for need in BASE if extra == "base" else EXTRAS[extra]:
        if need.name != "antiphon":
            assert need.specifier.contains(versions[need.name.lower()]), need
