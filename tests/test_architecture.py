"""The house keeps its rules, and each rule can be broken: a breach made on purpose is found."""

import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from house import MAY_IMPORT, import_breaches, print_breaches, size_breaches, trace_breaches

ROOT = Path(__file__).parents[1]
PARTS = sorted(MAY_IMPORT)
Rule = Callable[[Path, Path], list[str]]


def sources(part: str) -> list[Path]:
    return sorted(path for path in (ROOT / part).rglob("*.py") if path.is_file())


@pytest.mark.parametrize("part", [part for part in PARTS if part != "nano"])
def test_part_is_a_package_with_a_docstring(part):
    assert (ROOT / part / "__init__.py").read_text().startswith('"""')


@pytest.mark.parametrize("part", [*PARTS, "tests"])
def test_imports_keep_to_their_part(part):
    assert [line for path in sources(part) for line in import_breaches(path, ROOT)] == []


@pytest.mark.parametrize("part", PARTS)
def test_everything_fits_in_the_head(part):
    assert [line for path in sources(part) for line in size_breaches(path, ROOT)] == []


@pytest.mark.parametrize("part", PARTS)
def test_only_shells_print(part):
    assert [line for path in sources(part) for line in print_breaches(path, ROOT)] == []


def test_the_project_speaks_of_itself_only():
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    answer = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True)
    if answer.returncode != 0:
        pytest.skip("not a git work tree")
    files = [ROOT / name for name in answer.stdout.split("\0") if name]
    assert ROOT / "tests" / "house.py" in files
    found = [line for path in files if path.is_file() for line in trace_breaches(path, ROOT)]
    assert found == []


IMPORT_ALL = """
import importlib, pkgutil, sys
sys.modules.update(dict.fromkeys({blocked!r}))
package = importlib.import_module("antiphon.{part}")
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(module.name)
"""


@pytest.mark.parametrize("part", ["quant", "runtime"])
def test_part_starts_without_the_tools_of_export(part):
    blocked = ["torch", "transformers", "onnx", "sounddevice", "antiphon.export", "antiphon.apps"]
    code = IMPORT_ALL.format(part=part, blocked=blocked)
    subprocess.run([sys.executable, "-c", code], check=True)


def test_command_starts_without_optional_libraries():
    blocked = ["torch", "onnx", "sounddevice", "PySide6", "antiphon.export"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked})); import antiphon.apps.cli"
    subprocess.run([sys.executable, "-c", code], check=True)


def breaches(rule: Rule, place: str, code: str, root: Path) -> list[str]:
    path = root / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(code))
    return rule(path, root)


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("quant/a.py", "import torch"),
        ("quant/a.py", "import antiphon.runtime"),
        ("quant/a.py", "import antiphon"),
        ("runtime/a.py", "import torch.nn"),
        ("runtime/a.py", "from torch.nn import functional"),
        ("runtime/a.py", "def f():\n    import torch"),
        ("runtime/a.py", "if TYPE_CHECKING:\n    import torch"),
        ("runtime/a.py", "import importlib\nimportlib.import_module('torch')"),
        ("runtime/a.py", "__import__('torch')"),
        ("runtime/a.py", "import numpy, torch"),
        ("runtime/a.py", "import sounddevice"),
        ("runtime/a.py", "import onnxruntime"),
        ("runtime/a.py", "import tokenizers"),
        ("runtime/backend.py", "import tokenizers"),
        ("runtime/deep/backend.py", "import onnxruntime"),
        ("runtime/text.py", "import onnxruntime"),
        ("runtime/a.py", "from antiphon import export"),
        ("runtime/a.py", "from antiphon.apps.cli import main"),
        ("runtime/a.py", "from antiphon.runtime.ring import Ring"),
        ("runtime/a.py", "import ring"),
        ("runtime/a.py", "from .. import quant"),
        ("runtime/deep/a.py", "from ... import quant"),
        ("export/a.py", "import onnxruntime"),
        ("export/a.py", "from antiphon.apps import cli"),
        ("apps/a.py", "def f():\n    import antiphon.export"),
        ("apps/a.py", "import torch"),
        ("apps/export.py", "import antiphon.export"),
        ("apps/export.py", "from antiphon import export"),
        ("apps/export.py", "def f():\n    import torch"),
        ("nano/a.py", "import antiphon.apps"),
        ("nano/a.py", "import requests"),
        ("tests/a.py", "import runtime"),
        ("tests/a.py", "from quant.schemes import INT4"),
    ],
)
def test_a_forbidden_import_is_found(place, code, tmp_path):
    assert len(breaches(import_breaches, place, code, tmp_path)) == 1


@pytest.mark.parametrize(
    ("place", "code"),
    [
        (
            "quant/a.py",
            "import math, numpy as np\nfrom . import rounding\nfrom .rounding import up",
        ),
        ("runtime/a.py", "from antiphon.quant import schemes\nfrom antiphon import quant"),
        ("runtime/backend.py", "import onnxruntime as ort"),
        ("runtime/text.py", "from tokenizers import Tokenizer"),
        ("runtime/deep/a.py", "from .. import ring\nfrom ..ring import Ring"),
        ("export/a.py", "import torch, onnx\nfrom antiphon.runtime.bundle import Manifest"),
        ("apps/a.py", "import sounddevice\nfrom antiphon.runtime import Session"),
        ("apps/export.py", "def f():\n    from antiphon.export import export_bundle"),
        ("nano/a.py", "import torch, pocketsphinx\nfrom antiphon.export.reference import lm"),
        ("tests/a.py", "import pytest, torch, nano\nfrom antiphon.runtime import ring"),
    ],
)
def test_a_lawful_import_is_let_through(place, code, tmp_path):
    assert breaches(import_breaches, place, code, tmp_path) == []


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("x = 1\n" * 301, 1),
        ("x = 1\n" * 300, 0),
        ("def f():\n" + "    x = 1\n" * 40, 1),
        ("def f():\n" + "    x = 1\n" * 39, 0),
        ("class C:\n    async def f(self):\n" + "        x = 1\n" * 40, 1),
        ("def f(a, b, /, c, *, d, e, f, g): ...", 1),
        ("def f(a, b, c, d, e, *f, **g): ...", 1),
        ("def f(a, b, c, d, e, f): ...", 0),
        ("class C:\n    def f(self, a, b, c, d, e, f): ...", 0),
        ("class C:\n    def f(cls, a, b, c, d, e, f, g): ...", 1),
    ],
)
def test_size_is_measured(code, count, tmp_path):
    assert len(breaches(size_breaches, "runtime/a.py", code, tmp_path)) == count


@pytest.mark.parametrize("part", ["quant", "runtime", "export"])
def test_a_print_is_found(part, tmp_path):
    code = "def f():\n    print('x')"
    assert len(breaches(print_breaches, f"{part}/a.py", code, tmp_path)) == 1


@pytest.mark.parametrize("part", ["apps", "nano", "tests"])
def test_a_shell_may_print(part, tmp_path):
    assert breaches(print_breaches, f"{part}/a.py", "print('x')", tmp_path) == []


@pytest.mark.parametrize(
    "words",
    [
        ("see /wo", "rk/notes.md"),
        ("cd /ro", "ot/project"),
        ("run it in the Sand", "box"),
        ("https://py", "pi.org/simple"),
        ("files.python", "hosted.org"),
    ],
)
def test_a_trace_is_found(words, tmp_path):
    assert len(breaches(trace_breaches, "README.md", "fine\n" + "".join(words), tmp_path)) == 1


@pytest.mark.parametrize("text", ["a framework/for work", "the root of a tree", "a sand castle"])
def test_plain_words_are_no_trace(text, tmp_path):
    assert breaches(trace_breaches, "README.md", text, tmp_path) == []
