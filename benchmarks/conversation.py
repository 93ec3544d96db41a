"""Talk with nano through virtual devices, as a person would, and judge what comes out of them.

    scripts/virtual_devices.sh python -m benchmarks.conversation [--cases plain,echo,...]

Every question is one that nano answers right from the file. It is played into the microphone of a
running `antiphon talk`; the answer is recorded from the loudspeaker and judged by a recognizer that
is not ours. The cases are in `conversation_cases.py`. Prints a line of JSON for each.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from . import machine, virtual_sound
from .conversation_cases import CASES, Setting
from .spoken_questions import FromFile, Judge, Question, load


def right_from_file(bundle: Path, work: Path, count: int, judge: Judge) -> list[Question]:
    """So many questions, or as many as there are, that are answered right from the file."""
    by_file, chosen = FromFile(bundle, judge), []
    for question in load(bundle, work, 4 * count):
        if by_file.right(question):
            chosen.append(question)
        if len(chosen) == count:
            break
    return chosen


def main() -> None:
    """Run the cases."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("--bundle", type=Path, default=Path("nano/bundle"))
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    parser.add_argument("--count", type=int, default=20, help="questions of each case")
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--json", type=Path, help="write all results there")
    args = parser.parse_args()
    virtual_sound.check()
    if unknown := [name for name in args.cases.split(",") if name not in CASES]:
        parser.error(f"unknown case {unknown[0]}; choose from {', '.join(CASES)}")
    judge = Judge()
    questions = right_from_file(args.bundle, args.work.expanduser(), args.count, judge)
    print(f"{len(questions)} questions that are answered right from the file", file=sys.stderr)
    results: dict[str, Any] = {}
    for name in args.cases.split(","):
        with virtual_sound.Listener() as listener:
            results[name] = CASES[name](Setting(args.bundle, listener, judge, questions))
        print(json.dumps({"case": name} | results[name], ensure_ascii=False), flush=True)
    if args.json:
        machine.save("conversation", {"questions": len(questions), "cases": results}, args.json)


if __name__ == "__main__":
    main()
