"""The rules of the house: functions from one source file to its breaches, one line each."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

FILE_LINES, FUNCTION_LINES, PARAMETERS = 300, 40, 6
PRINTING = {"apps", "benchmarks", "nano", "tests"}

GRAPH_TOOLS = {"onnx", "safetensors", "torch"}
SPEECH_TOOLS = {"G722", "espeakng_loader", "faster_whisper", "phonemizer", "piper", "pocketsphinx"}
MAY_IMPORT = {
    "quant": {"numpy"},
    "runtime": {"antiphon.quant", "numpy"},
    "export": {"antiphon.quant", "antiphon.runtime", "numpy", "transformers"} | GRAPH_TOOLS,
    "apps": {"antiphon.runtime", "numpy", "PySide6", "pywebrtc_audio", "sounddevice", "soundfile"},
    "nano": {"antiphon.export", "antiphon.quant", "antiphon.runtime", "numpy", "onnxruntime"}
    | {"soundfile", "tokenizers", "tqdm"}
    | GRAPH_TOOLS
    | SPEECH_TOOLS,
    "benchmarks": {"antiphon.apps", "antiphon.export", "antiphon.quant", "antiphon.runtime", "nano"}
    | {"gguf", "numpy", "onnxruntime", "soundfile", "tokenizers", "tqdm"}
    | GRAPH_TOOLS,
}
# One file per engine library, one for the tokenizer, one for plots: all else stays replaceable.
ONLY_IN = {
    "runtime/backend.py": {"onnxruntime"},
    "runtime/text.py": {"tokenizers"},
    "export/analysis/pictures.py": {"matplotlib"},
}
# Commands that read checkpoints. They import inside a function, so that talking needs no torch.
EXPORT_COMMANDS = {
    f"apps/{name}.py"
    for name in ("analyze", "calibrate", "evaluate", "export", "inspect", "sensitivity")
}
LAZY = {"antiphon.export", "antiphon.quant"}

# Written so that this file does not contain what it looks for.
TRACES = {
    "a path of the machine it was written on": re.compile(r"/wor[k]/|/roo[t]/|/bash_job[s]"),
    "the place it was written in": re.compile(r"\bsand[b]ox|antiphon-wor[k]", re.IGNORECASE),
    "a package-registry host": re.compile(
        r"pyp[i][.]org|python[h]osted[.]org|npmjs[.]o[r]g|deb[.]deb[i]an[.]org", re.IGNORECASE
    ),
}


def import_breaches(path: Path, root: Path) -> list[str]:
    """Imports that cross a border of the house where there is no door."""
    place = path.relative_to(root).as_posix()
    found = []
    for node, lazy in walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level >= len(Path(place).parts):
            found.append(f"{place}:{node.lineno}: a relative import leaves its part")
        for name in absolute_names(node):
            if not allowed(name, place, lazy=lazy):
                found.append(f"{place}:{node.lineno}: may not import {name}")
    return found


def walk(node: ast.AST, *, lazy: bool = False) -> Iterator[tuple[ast.AST, bool]]:
    """Every node below, and whether it lies inside a function."""
    for child in ast.iter_child_nodes(node):
        yield child, lazy
        inside = lazy or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from walk(child, lazy=inside)


def absolute_names(node: ast.AST) -> set[str]:
    """What a statement or an import_module("...") call imports: `library` or `antiphon.part`."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom) and node.level == 0:
        module = node.module or ""
        names = [f"antiphon.{a.name}" for a in node.names] if module == "antiphon" else [module]
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", getattr(node.func, "id", ""))
        dynamic = called in {"import_module", "__import__"}
        names = [str(node.args[0].value)] if dynamic else []
    else:
        names = []
    return {".".join(name.split(".")[: 2 if name.startswith("antiphon") else 1]) for name in names}


def allowed(name: str, place: str, *, lazy: bool) -> bool:
    """Whether the file at `place` may import `name`, at module level or inside a function."""
    part = place.split("/")[0]
    if part == "tests":  # free, but by installed names: `runtime` would be a second module
        return name not in MAY_IMPORT.keys() - {"benchmarks", "nano"}
    if name in sys.stdlib_module_names or name in MAY_IMPORT[part] | ONLY_IN.get(place, set()):
        return True
    return place in EXPORT_COMMANDS and lazy and name in LAZY


def size_breaches(path: Path, root: Path) -> list[str]:
    """Files and functions that no longer fit in the head."""
    place, text = path.relative_to(root).as_posix(), path.read_text()
    lines = len(text.splitlines())
    found = [f"{place}: {lines} lines, limit {FILE_LINES}"] if lines > FILE_LINES else []
    for node, _ in walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        where = f"{place}:{node.lineno}: {node.name}"
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > FUNCTION_LINES:
            found.append(f"{where}: {length} lines, limit {FUNCTION_LINES}")
        count = len(parameters(node.args))
        if count > PARAMETERS:
            found.append(f"{where}: {count} parameters, limit {PARAMETERS}")
    return found


def parameters(args: ast.arguments) -> list[str]:
    """Names of all parameters, self and cls not counted."""
    given = [*args.posonlyargs, *args.args, *args.kwonlyargs, args.vararg, args.kwarg]
    names = [arg.arg for arg in given if arg is not None]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def print_breaches(path: Path, root: Path) -> list[str]:
    """Calls of print where nobody reads stdout."""
    place = path.relative_to(root).as_posix()
    if place.split("/")[0] in PRINTING:
        return []
    return [
        f"{place}:{node.lineno}: print belongs to apps, nano and tests; log instead"
        for node, _ in walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    ]


def trace_breaches(path: Path, root: Path) -> list[str]:
    """Lines of a text file that speak of where it was written instead of the project."""
    data = path.read_bytes()
    if b"\0" in data:
        return []
    return [
        f"{path.relative_to(root)}:{number}: names {what}"
        for number, line in enumerate(data.decode(errors="replace").splitlines(), 1)
        for what, pattern in TRACES.items()
        if pattern.search(line)
    ]
