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
from .dialogues import lm_config
from .tokens import trained_tokenizer

VOICE = "heart"
# The streaming encoder's floor is this minus 8 until something louder is heard (contract D.4): at
# 0.0, 99.7 % of codes equal the offline ones on the evaluation set, and 98.2 % when it is 20 dB
# quieter; at 1.0, the set's median maximum, 99.9 % and 95.1 %.
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
    state = torch.load(path, weights_only=True)
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
    if args.checkpoint.exists():
        shutil.rmtree(args.checkpoint)
    save_checkpoint(args.checkpoint, ref, extras, dtype="fp16")
    logs = {}
    for name in ("tokenizer", "vocoder", "flow", "lm"):
        rows = (work / "train" / f"{name}.jsonl").read_text().splitlines()
        logs[name] = json.loads(rows[-1])
    (args.checkpoint / "training.json").write_text(json.dumps(logs, indent=1) + "\n")


if __name__ == "__main__":
    main()
