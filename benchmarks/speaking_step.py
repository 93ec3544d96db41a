"""`python -m benchmarks.speaking_step`: milliseconds for one spoken code of the 9 B model.

Against two yardsticks in the same run, taken in turns: the time that merely reading the weights and
the remembered keys and values takes, and llama.cpp with a Q4_0 model of the same shapes.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from antiphon.export.reference.config import LMConfig
from antiphon.runtime.errors import AntiphonError, ConfigError

from . import operators, speaking_path
from .llama_cpp import LlamaCpp
from .machine import MemoryReader, percentiles, save

WARM = 2  # steps after taking turns that are not counted
GOALS = {"of_floor": 0.6, "times_llama": 1.3}


@dataclass(slots=True)
class Times:
    """Milliseconds of every step, by the clock on the wall and by that of the processor."""

    wall: list[list[float]] = field(default_factory=list)  # by round
    cpu: list[float] = field(default_factory=list)

    def add(self, step: Callable[[], object], steps: int) -> None:
        """One round: a few steps to warm up, then `steps` that count."""
        for _ in range(WARM):
            step()
        found = []
        for _ in range(steps):
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            found.append(1e3 * (time.perf_counter() - wall))
            self.cpu.append(1e3 * (time.process_time() - cpu))
        self.wall.append(found)

    @property
    def medians(self) -> list[float]:
        """Of each round."""
        return [statistics.median(found) for found in self.wall]

    def summary(self) -> dict[str, Any]:
        """For the result."""
        steps = [step for found in self.wall for step in found]
        return {"ms": percentiles(steps), "cpu_ms": percentiles(self.cpu)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is timed."""

    engines: Path
    llama: LlamaCpp | None
    reader: MemoryReader
    steps: int
    rounds: int
    cores: int


def measure(plan: Plan, path: speaking_path.SpeakingPath, threads: int, context: int) -> Any:
    """Both at one context and number of threads, in turns."""
    ours, theirs, bandwidth = Times(), Times(), []
    more = plan.steps + WARM
    path.open(context, more)
    if plan.llama:
        plan.llama.threads(threads, plan.cores)
        plan.llama.extend(context)
    for _ in range(plan.rounds):
        bandwidth.append(plan.reader.bytes_per_s(threads))
        ours.add(path.step, plan.steps)
        path.back(more)
        if plan.llama:
            theirs.add(plan.llama.step, plan.steps)
            plan.llama.extend(context)
    weights, cache = speaking_path.weight_bytes(plan.engines), path.cache_bytes
    floor = 1e3 * (weights + cache) / max(bandwidth)
    found = {
        "threads": threads,
        "context_rows": context,
        "allocated_rows": path.allocated,
        "weight_bytes": weights,
        "cache_bytes": cache,
        "read_gb_per_s": round(max(bandwidth) / 1e9, 2),
        "floor_ms": round(floor, 2),
        "ours": ours.summary(),
        "of_floor": round(floor / statistics.median(ours.medians), 3),
    }
    if plan.llama:
        ratios = [b / a for a, b in zip(ours.medians, theirs.medians, strict=True)]
        cpu = statistics.median(theirs.cpu) / statistics.median(ours.cpu)
        found |= {
            "llama_cpp": theirs.summary(),
            "times_llama": round(statistics.median(ratios), 3),
            "times_llama_by_round": [round(ratio, 3) for ratio in ratios],
            "times_llama_cpu": round(cpu, 3),
        }
    return found


def _line(found: dict[str, Any]) -> str:
    text = (
        f"{found['threads']} threads, {found['context_rows']:5} rows: "
        f"{found['ours']['ms']['p50']:7.1f} ms (floor {found['floor_ms']:.1f} ms at "
        f"{found['read_gb_per_s']} GB/s: {found['of_floor']:.2f} of it)"
    )
    if "times_llama" in found:
        theirs = found["llama_cpp"]["ms"]["p50"]
        text += f", llama.cpp {theirs:.1f} ms: {found['times_llama']:.2f} times as fast"
    return text


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speaking_step")
    add = parser.add_argument
    add("engines", type=Path, help="folder of trunk and speech_branch: a bundle, or made here")
    add("--layers", type=int, default=36, help="of engines made here (default: 36)")
    add("--weights", default="int4", help="recipe of engines made here (default: int4)")
    add("--kv", choices=("float32", "int8"), default="float32", help="caches of engines made here")
    add("--llama", type=Path, metavar="DIR", help="llama.cpp's shared libraries")
    add("--gguf", type=Path, metavar="FILE", help="its model, made here if it is not there")
    add("--contexts", type=int, nargs="+", default=[64, 1000, 4000], metavar="ROWS")
    add("--threads", type=int, nargs="+", default=[1, 2], metavar="N")
    add("--steps", type=int, default=20, help="counted in each turn (default: 20)")
    add("--rounds", type=int, default=5, help="turns of each (default: 5)")
    add("--operators", action="store_true", help="also say which operators take the time")
    add("--out", type=Path, help="of the result (default: benchmarks/results/speaking_step.json)")
    args = parser.parse_args(argv)
    if args.llama and not args.gguf:
        parser.error("--llama needs --gguf")
    return args


def _llama(args: argparse.Namespace, layers: int) -> LlamaCpp | None:
    if not args.llama:
        return None
    if not args.gguf.exists():
        from .gguf_file import write

        config = LMConfig.from_json(speaking_path.sizes_of(layers).lm_config())
        write(args.gguf, config)
    rows = -(-(max(args.contexts) + args.steps + WARM) // 256) * 256
    llama = LlamaCpp(args.llama, args.gguf, rows)
    if llama.layers != layers:
        raise ConfigError(
            f"{args.gguf}: {llama.layers} layers, the engines have {layers}; remove the file, and "
            "it will be made anew"
        )
    return llama


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Measure all that was asked for."""
    sizes = speaking_path.sizes_of(args.layers)
    speaking_path.build(args.engines, sizes, args.weights, max(args.threads), args.kv)
    results, shown, llama = [], [], None
    for threads in args.threads:
        path = speaking_path.SpeakingPath(args.engines, sizes, threads, args.kv)
        llama = llama or _llama(args, path.layers)
        plan = Plan(
            engines=args.engines,
            llama=llama,
            reader=MemoryReader(),
            steps=args.steps,
            rounds=args.rounds,
            cores=max(args.threads),
        )
        for context in sorted(args.contexts):
            results.append(measure(plan, path, threads, context))
            print(_line(results[-1]), flush=True)
        layers = path.layers
        del path
        gc.collect()  # before the next engines are loaded
    if args.operators:
        for context in args.contexts:
            shown.append(operators.profile(args.engines / "trunk.onnx", context))
            print(operators.line(shown[-1]), flush=True)
    about = {"system": llama.system, "buffers": llama.buffers} if llama else None
    return {
        "layers": layers,
        "caches": args.kv,
        "steps": args.steps,
        "rounds": args.rounds,
        "goals": GOALS,
        "results": results,
        "operators": shown,
        "llama_cpp": about,
    }


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = _arguments(argv)
    try:
        result = run(args)
    except AntiphonError as error:
        print(f"speaking_step: {error}", file=sys.stderr)
        return 1
    print(save("speaking_step", result, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
