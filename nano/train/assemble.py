"""Last stage: the four trained parts as a checkpoint in the published layout.

python -m nano.train.assemble nano/checkpoint
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from antiphon.export.checkpoint import Reference
from antiphon.export.checkpoint_writer import Extras, save_checkpoint
from antiphon.export.reference.flow import Flow
from antiphon.export.reference.hift import Hift
from antiphon.export.reference.lm import MossSpeechLM

from . import flow, vocoder
from .corpus import load_index
from .dialogues import lm_config
from .tokens import trained_tokenizer

VOICE = "heart"
# The streaming encoder's floor is this minus 8 until something louder is heard (contract D.4).
# Chosen by measurement, see docs/LOG.md: quiet questions lose fewest codes.
LOG_MEL_MAX = 0.0
SAMPLING = {
    "do_sample": False,
    "temperature": 0.6,
    "top_p": 0.95,
    "top_k": 20,
    "repetition_penalty": 1.0,
    "max_new_tokens": 150,
    "min_new_tokens": 0,
}


def stage(work: Path, name: str, prefix: str = "") -> dict[str, Any]:
    """Weights of a stage's checkpoint whose names start with `prefix`, without it."""
    path = work / "train" / f"{name}.pt"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run python -m nano.train.{name} first")
    state = torch.load(path, weights_only=True, map_location="cpu")
    planned = state.get("plan", state)["steps" if "plan" in state else "step"]
    if state["step"] < planned:
        raise SystemExit(f"{path}: {state['step']} of {planned} steps; let the stage finish")
    return {k[len(prefix) :]: v for k, v in state["model"].items() if k.startswith(prefix)}


def reference(work: Path) -> Reference:
    """The trained modules."""
    text = Tokenizer.from_file(str(work / "train" / "tokenizer.json"))
    parts = (MossSpeechLM(lm_config(text)), Flow(flow.CONFIG), Hift(vocoder.CONFIG))
    sources = (("lm", ""), ("flow", "kept."), ("vocoder", "kept."))
    for part, (name, prefix) in zip(parts, sources, strict=True):
        part.load_state_dict(stage(work, name, prefix))
    return Reference(lm=parts[0], tokenizer=trained_tokenizer(work), flow=parts[1], hift=parts[2])


def voice(work: Path, ref: Reference) -> dict[str, Any]:
    """The reply voice: its prompt's codes and mel, and its vector."""
    spoken = {r.name: r for r in flow.spoken_replies(work, ref.tokenizer, flow.PROMPT_REPLY)}
    prompt = spoken[flow.PROMPT_REPLY]
    return {
        "prompt_codes": prompt.codes[: flow.PROMPT_CODES].numpy(),
        "prompt_mel": prompt.mel[:, : flow.PROMPT_CODES * flow.RATIO].numpy(),
        "embedding": flow.speaker_vector().numpy(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    args = parser.parse_args()
    work = args.work.expanduser()
    ref = reference(work)
    extras = Extras(
        tokenizer_json=work / "train" / "tokenizer.json",
        voices={VOICE: voice(work, ref)},
        sampling=SAMPLING,
        log_mel_max=LOG_MEL_MAX,
    )
    target = args.checkpoint.absolute()
    if target.exists() and not (target / "MOSS-Speech" / "config.json").is_file():
        raise SystemExit(f"{target} is no checkpoint; name another folder")
    fresh, old = target.with_name(f"{target.name}.new"), target.with_name(f"{target.name}.old")
    shutil.rmtree(fresh, ignore_errors=True)
    save_checkpoint(fresh, ref, extras, dtype="fp16")
    (fresh / "training.json").write_text(json.dumps(history(work), indent=1) + "\n")
    shutil.copyfile(Path(__file__).parents[2] / "NOTICE", fresh / "NOTICE")
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def history(work: Path) -> dict[str, Any]:
    """What this checkpoint was made from: recordings per set, and each stage's last log row."""
    made: dict[str, Any] = {
        "recordings": {s: len(load_index(work, s)) for s in ("replies", "questions", "accents")}
    }
    for name in ("tokenizer", "vocoder", "flow", "lm"):
        rows = (work / "train" / f"{name}.jsonl").read_text().splitlines()
        made[name] = json.loads(rows[-1])
    return made


if __name__ == "__main__":
    main()
