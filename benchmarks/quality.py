"""`python -m benchmarks.quality CHECKPOINT STATISTICS OUT`: what each recipe costs nano.

Exports every recipe that is not in OUT yet, and its twins, which store the same matrices in as many
bits but choose the codes otherwise. Then, one stage after the other:

    answers   right spoken answers, as `python -m nano.evaluate` left them in nano/results
    heads     the bundle reads the float32 bundle's replies: agreement and KL of both heads
    engines   `antiphon eval`: every engine by itself, codes heard, endings, voice
    speed     replies in turns, in seconds of the processor, so that other work does not count
    bytes     of the bundles, and of what the published checkpoint would become

Every stage leaves its numbers in benchmarks/results/quality.json, so that stages can be run one by
one; date and machine there are those of the last one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from antiphon.export.checkpoint import Checkpoint
from antiphon.export.plan import Plan
from antiphon.export.proof.evaluation import evaluate
from antiphon.export.proof.report import Subject
from antiphon.export.proof.sound import find_listener
from antiphon.runtime.errors import AntiphonError, ConfigError
from nano.evaluate import on_cpu, paired

from .layout import REAL
from .machine import RESULTS, save
from .quality_bundles import PLAIN, RECIPES, TWINS, export_all
from .quality_heads import Dialogues, asked, better, read_back, scores
from .quality_speed import in_turns

REFERENCE = "fp32"
TIMED = (REFERENCE, "int8", "int4", "int4-quality")
STAGES = ("answers", "heads", "engines", "speed", "bytes")
GOALS = {  # points below the reference, and share of the same likeliest id
    "int8": {"points": -0.5, "agreement": 0.97},
    "int4": {"points": -2.0, "agreement": 0.93},
    "fp8": {"points": -0.5},
    "int4-quality": {"kl_less_than_plain": 0.3, "larger_than_int4": 0.08},
}


def answers(results: Path) -> dict[str, Any]:
    """Held-out questions of every recipe that were asked, paired with the reference's."""
    found = {}
    for name in RECIPES:
        path = results / f"held-out-{name}.json"
        if path.is_file():
            found[name] = json.loads(path.read_text("utf-8"))
    if REFERENCE not in found:
        raise ConfigError(
            f"{results}: no held-out-{REFERENCE}.json; python -m nano.evaluate makes it"
        )
    kept = ("questions", "exact", "exact_apart_from_development", "speech_to_text_exact")
    return {
        name: {key: raw[key] for key in kept}
        | {"against": paired(raw["right"], found[REFERENCE]["right"])}
        for name, raw in found.items()
    }


def heads(out: Path, work: Path, count: int) -> dict[str, Any]:
    """Agreement and KL of every recipe and twin along the same replies."""
    dialogues = Dialogues.of(on_cpu(out / REFERENCE), asked(work, count))
    read = {
        name: read_back(on_cpu(out / name), dialogues)
        for name in (*RECIPES, *TWINS)
        if name != REFERENCE
    }
    found: dict[str, Any] = {name: scores(rows) for name, rows in read.items()}
    for name, plain in PLAIN.items():
        found[name]["less_than_plain"] = better(read[name], read[plain])
    return found


def engines(out: Path, work: Path, count: int) -> dict[str, Any]:
    """`antiphon eval` of every recipe, without its list of dialogues."""
    found, reference = {}, on_cpu(out / REFERENCE)
    for name in RECIPES:
        if name != REFERENCE:
            bundle = on_cpu(out / name)
            report = evaluate(bundle, asked(work, count), reference, listener=find_listener())
            found[name] = report.as_dict()
            del found[name]["exchanges"]
            print(f"engines: {name} done", flush=True)
    return found


def sizes(out: Path) -> dict[str, Any]:
    """Bytes of the bundles, and of the language model that the published one would become."""
    found: dict[str, Any] = {}
    for name in (*RECIPES, *TWINS):
        subject = Subject.of(on_cpu(out / name))
        found[name] = {"bytes": subject.nbytes, "step_bytes": subject.step_bytes}
    published = cast(Checkpoint, SimpleNamespace(shapes=REAL.census))  # a plan reads no tensor
    for name, target in RECIPES.items():
        plan = Plan.make(published, name, target)
        parts = {
            part: sum(weight.nbytes for weight in plan.of(part).values())
            for part in ("trunk", "speech_branch", "text_branch", "tables")
        }
        step = parts["trunk"] + parts["speech_branch"]
        found[name]["published"] = {"lm_bytes": sum(parts.values()), "step_bytes": step}
    return found


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality", description=__doc__, formatter_class=formatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="nano's")
    add("statistics", type=Path, help="of `antiphon calibrate` with training questions")
    add("out", type=Path, help="folder of the bundles, made where absent")
    add("--stages", nargs="+", choices=STAGES, default=STAGES)
    add("--work", type=Path, default=Path("~/.cache/antiphon-nano"), help="held-out questions")
    add("--heads-questions", type=int, default=120, help="for the heads (default: 120)")
    add("--engine-questions", type=int, default=16, help="for the engines (default: 16)")
    add("--speed-questions", type=int, default=16, help="timed in turns (default: 16)")
    return parser.parse_args(argv)


def run(args: argparse.Namespace, result: dict[str, Any]) -> None:
    """The stages asked for, each saved when it is done."""
    work = args.work.expanduser()
    export_all(args.checkpoint, args.statistics, args.out)
    stages = {
        "answers": lambda: answers(Path(__file__).parents[1] / "nano" / "results"),
        "heads": lambda: heads(args.out, work, args.heads_questions),
        "engines": lambda: engines(args.out, work, args.engine_questions),
        "speed": lambda: in_turns(args.out, TIMED, asked(work, args.speed_questions)),
        "bytes": lambda: sizes(args.out),
    }
    for name in args.stages:
        result[name] = stages[name]()
        print(f"{name}: {save('quality', result)}", flush=True)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    args = _arguments(argv)
    before = RESULTS / "quality.json"
    kept = json.loads(before.read_text("utf-8")) if before.is_file() else {}
    result = {"goals": GOALS} | {stage: kept[stage] for stage in STAGES if stage in kept}
    try:
        run(args, result)
    except AntiphonError as error:
        print(f"quality: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
