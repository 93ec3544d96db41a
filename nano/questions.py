"""Put a few recorded questions into the bundle, for `antiphon demo`.

    python -m nano.questions nano/bundle

They are taken from the evaluation set: voices and phrasings that were never trained on.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import soundfile

from .domain import MEANINGS
from .train.corpus import load_index, read

ASKED = (
    "add_three_four",
    "subtract_nine_two",
    "day_after_monday",
    "month_before_june",
    "opposite_slow",
    "color_grass",
    "capital_france",
    "number_after_twelve",
)


def main() -> None:
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    args = parser.parse_args()
    folder = args.bundle / "questions"
    folder.mkdir(exist_ok=True)
    spoken = {u.meaning: u for u in reversed(load_index(args.work.expanduser(), "eval"))}
    replies = {m.id: m.reply for m in MEANINGS}
    index = {}
    for meaning in ASKED:
        question = spoken[meaning]
        pcm = read(question, 16000)
        soundfile.write(folder / f"{meaning}.flac", pcm, 16000, subtype="PCM_16")
        index[meaning] = {"text": question.text, "reply": replies[meaning]}
    (folder / "questions.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
