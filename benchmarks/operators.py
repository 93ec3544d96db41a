"""Which operators of an engine take the time."""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

RUNS = 20
_LARGEST = 6  # nodes named


def profile(path: Path, context: int, threads: int = 1) -> dict[str, Any]:
    """Milliseconds by operator of one row through a language-model engine after `context` rows.

    Each node counts with its fastest run, so that other programs disturb little.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = _session(path, folder, threads)
        binding, kept = _bind(session, context + 1)
        for _ in range(RUNS):
            session.run_with_iobinding(binding)
        events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
    del kept
    runs: dict[tuple[str, str], list[int]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            node = event["name"].removesuffix("_kernel_time")
            runs[event["args"]["op_name"], node].append(event["dur"])
    totals: Counter[str] = Counter()
    for (operator, _), found in runs.items():
        totals[operator] += min(found)
    largest = sorted(((min(found), node) for (_, node), found in runs.items()), reverse=True)
    return {
        "engine": path.stem,
        "context_rows": context,
        "threads": threads,
        "ms": {operator: round(us / 1e3, 3) for operator, us in totals.most_common()},
        "largest_nodes_ms": {node: round(us / 1e3, 3) for us, node in largest[:_LARGEST]},
    }


def line(found: dict[str, Any]) -> str:
    """The three most expensive operators."""
    first = list(found["ms"].items())[:3]
    total = sum(found["ms"].values())
    shares = ", ".join(f"{operator} {ms:.1f} ms ({ms / total:.0%})" for operator, ms in first)
    return f"{found['engine']}, {found['context_rows']} rows: {shares}"


def _session(path: Path, folder: str, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_profiling, options.profile_file_prefix = True, f"{folder}/profile"
    options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "4")
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _bind(session: Any, rows: int) -> tuple[Any, list[Any]]:
    """Inputs for the last of `rows` rows, caches in place; also what must stay alive."""
    binding, kept = session.io_binding(), []
    random = np.random.default_rng(0)
    pool = random.standard_normal(1_048_573, np.float32)
    for node in session.get_inputs():
        shape = [{"S": 1, "C": rows}.get(size, size) for size in node.shape]
        value: NDArray[Any] = np.resize(pool, shape)
        if node.name == "write_index":
            value = np.array([rows - 1])
        elif node.name == "mask":
            value = np.zeros(shape, np.float32)
        held = ort.OrtValue.ortvalue_from_numpy(value)
        kept.append((held, value))
        binding.bind_ortvalue_input(node.name, held)
        if node.name.startswith(("key_", "value_")):
            binding.bind_ortvalue_output(f"{node.name}_out", held)
    for node in session.get_outputs():
        if not node.name.endswith("_out"):
            binding.bind_output(node.name)
    return binding, kept
