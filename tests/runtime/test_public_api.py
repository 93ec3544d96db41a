"""The public names, exactly, and how little importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from antiphon import runtime
from antiphon.runtime import errors

HEAVY = ["numpy", "onnxruntime", "tokenizers", "torch"]


@pytest.mark.parametrize("name", runtime.__all__)
def test_every_public_name_exists(name: str) -> None:
    assert getattr(runtime, name).__name__ == name
    assert getattr(runtime, name).__module__.startswith("antiphon.runtime.")


def test_the_list_is_complete() -> None:
    defined = {
        n for n, v in vars(errors).items() if getattr(v, "__module__", "") == errors.__name__
    }
    assert set(runtime.__all__) == defined | set(runtime._HOME)
    assert dir(runtime) == runtime.__all__


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Sesion'"):
        runtime.Sesion  # noqa: B018


def test_importing_loads_nothing_heavy() -> None:
    code = f"import sys; sys.modules.update(dict.fromkeys({HEAVY})); import antiphon.runtime"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("module", ["bundle", "manifest", "prompt", "sampling"])
def test_opening_a_bundle_needs_no_engine_library(module: str) -> None:
    blocked = ["onnxruntime", "tokenizers"]
    code = f"import sys; sys.modules.update(dict.fromkeys({blocked}))"
    subprocess.run([sys.executable, "-c", f"{code}; import antiphon.runtime.{module}"], check=True)
