"""Make the parts of a checkpoint finished stages again, to train one on or to assemble them anew.

    python -m nano.train.restore nano/checkpoint        (before any stage of this folder)

Writes WORK/train: NAME.pt, NAME.jsonl with the stage's last log row, and tokenizer.json. What only
training needs is in no checkpoint: the states of the optimizers, which begin anew, and the CTC
heads of the tokenizer, which therefore can be used but not trained on.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from torch import nn

from antiphon.export.checkpoint import Checkpoint

from .loop import save_atomically
from .vocoder import Averaged


def restore(checkpoint: Path, work: Path) -> None:
    """Raises SystemExit, and writes nothing, when WORK has a stage already."""
    folder = work / "train"
    if found := sorted(folder.glob("*.pt")):
        raise SystemExit(f"{found[0]} is there already: name another --work, or move it away")
    opened = Checkpoint.open(checkpoint)
    rows = json.loads((checkpoint / "training.json").read_text())
    ref = opened.reference()
    stages: dict[str, nn.Module] = {
        "tokenizer": ref.tokenizer,
        "lm": ref.lm,
        "flow": Averaged(ref.flow),
        "vocoder": Averaged(ref.hift),
    }
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(opened.tokenizer_json, folder / "tokenizer.json")
    for name, model in stages.items():
        (folder / f"{name}.jsonl").write_text(json.dumps(rows[name]) + "\n")
        step = int(rows[name]["step"])
        facts = {"step": step, "cpu_s": rows[name]["cpu_s"], "plan": {"steps": step}}
        save_atomically({"model": model.state_dict()} | facts, folder / f"{name}.pt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    args = parser.parse_args()
    restore(args.checkpoint, args.work.expanduser())


if __name__ == "__main__":
    main()
