"""`python -m benchmarks.memory BUNDLE`: memory of a running conversation.

A session is opened, given long written turns, and made to speak; what is resident after each
is put beside what the model contract (section I) expects of a graphics card.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.errors import AntiphonError
from antiphon.runtime.scheduler import Job
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig

from .machine import save
from .process import Process

GIB = 1 << 30
CONTRACT_GIB = {  # contract I, text embedding on the host: language model, codec, KV of 2k and 4k
    "int4": {"language_model": 4.79, "codec": 0.90, "cache_2k": 0.31, "cache_4k": 0.63},
    "int8": {"language_model": 8.39, "codec": 0.90, "cache_2k": 0.31, "cache_4k": 0.63},
}
LANGUAGE = ("trunk", "speech_branch", "text_branch")
_SPARE_ROWS = 32  # of the template, around a turn


def weights_gib(bundle: Bundle) -> dict[str, float]:
    """What the engines' files hold."""
    sizes = {"language_model": 0, "codec": 0}
    for name, entry in bundle.manifest.engines.items():
        kind = "language_model" if name in LANGUAGE else "codec"
        sizes[kind] += sum(file.size_bytes for file in entry.data)
    return {kind: round(size / GIB, 2) for kind, size in sizes.items()}


def converse(session: Session, rows: int, codes: int) -> dict[str, Any]:
    """A written turn that fills the memory up to `rows`, and the first `codes` of a reply."""
    letters = rows - session.length - codes - _SPARE_ROWS
    session.say("a" * max(1, letters))  # the least rows that a letter can take is one
    while session.reply is None or not (
        session.reply.finished or len(session.reply.codes) >= codes
    ):
        if session.step() is Job.WAIT:
            time.sleep(0.001)
    while session.reply.unspoken(1) and not session.reply.chunks:
        if session.step() is Job.WAIT:
            break
    seconds, counts = session.metrics.seconds, session.metrics.counts
    found = {
        "rows": session.length,
        "codes": len(session.reply.codes),
        "think_ms": round(1e3 * seconds.get("think", 0) / max(1, counts.get("think", 0)), 1),
        "prefill_ms_per_row": round(1e3 * seconds.get("prefill", 0) / max(1, letters), 1),
    }
    session.cancel()
    return found


def measure(path: Path, contexts: list[int], codes: int, threads: int) -> dict[str, Any]:
    """Memory after each step of a conversation."""
    process, stages = Process(), []

    def note(stage: str, **facts: Any) -> None:
        stages.append({"stage": stage, **process.memory(), **facts})
        print(f"{stage}: {stages[-1]['resident_gib']:.2f} GiB", flush=True)
        process.forget_peak()

    note("libraries loaded")
    bundle = Bundle.open(path, verify=False)
    note("bundle opened")
    config = SessionConfig(capacity_rows=2 * max(contexts), threads=threads)
    start = time.perf_counter()
    session = Session(bundle, config)
    note("session ready", seconds=round(time.perf_counter() - start, 1))
    for rows in contexts:
        note(f"{rows} rows, speaking", **converse(session, rows, codes))
    return {
        "weights": bundle.manifest.weights,
        "threads": threads,
        "weight_files_gib": weights_gib(bundle),
        "contract_gib": CONTRACT_GIB.get(bundle.manifest.weights),
        "stages": stages,
    }


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--contexts", type=int, nargs="+", default=[2000, 4000], metavar="ROWS")
    parser.add_argument("--codes", type=int, default=16, help="spoken at each (default: 16)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/memory.json")
    args = parser.parse_args(argv)
    try:
        result = measure(args.bundle, sorted(args.contexts), args.codes, args.threads)
    except AntiphonError as error:
        print(f"memory: {error}", file=sys.stderr)
        return 1
    print(save("memory", result, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
