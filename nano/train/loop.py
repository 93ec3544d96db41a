"""The training loop shared by all stages: progress bar, log, resumable checkpoints."""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

Step = Callable[[int], dict[str, Tensor]]  # step number -> losses; "loss" is minimised


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long and how fast a stage trains."""

    name: str
    steps: int
    learning_rate: float
    warmup: int = 100
    final_fraction: float = 0.02  # of the learning rate, at the last step (cosine)
    save_every: int = 100
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """Multiplier of the learning rate."""
        if step < self.warmup:
            return (step + 1) / self.warmup
        done = (step - self.warmup) / max(1, self.steps - self.warmup)
        fall = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return self.final_fraction + (1 - self.final_fraction) * fall


@dataclass(frozen=True, slots=True)
class Settings:
    """What every stage's command line states."""

    work: Path
    device: torch.device
    steps: int
    batch: int
    learning_rate: float


def settings(about: str, *, steps: int, batch: int, learning_rate: float) -> Settings:
    """Parse the command line of a stage; seeds torch, one thread (stages run side by side)."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=formatter)
    parser.add_argument("--work", type=Path, default=Path("~/.cache/antiphon-nano"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--steps", type=int, default=steps)
    parser.add_argument("--batch", type=int, default=batch)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    args = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    work, device = args.work.expanduser(), torch.device(args.device)
    return Settings(work, device, args.steps, args.batch, args.learning_rate)


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """torch.save to a temporary name, then rename."""
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


class Journal:
    """Means of the losses since the last row, and the log they go to."""

    def __init__(self, path: Path, cpu_s: float) -> None:
        """cpu_s: what the steps before this process took."""
        self.path = path
        self._seen: dict[str, list[float]] = defaultdict(list)
        self._began = time.process_time() - cpu_s

    @property
    def cpu_s(self) -> float:
        """Spent on all steps so far, by this process and those before it."""
        return time.process_time() - self._began

    def add(self, losses: dict[str, Tensor]) -> None:
        """Count one step."""
        for key, value in losses.items():
            self._seen[key].append(float(value.detach()))

    def write(self, step: int, scores: dict[str, float]) -> dict[str, float]:
        """Append a row with the means and the scores of an evaluation."""
        row = {"step": float(step), "cpu_s": self.cpu_s}
        row |= {k: sum(v) / len(v) for k, v in self._seen.items()} | scores
        self._seen.clear()
        with self.path.open("a") as file:
            file.write(json.dumps({k: round(v, 5) for k, v in row.items()}) + "\n")
        return row


def resume(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """Load the checkpoint if there is one; returns the steps already done, and their CPU seconds.

    The plan may be another one than before: that is how a finished stage trains on. What
    `nano.train.restore` wrote has no state of the optimizer, which then begins anew.
    """
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, weights_only=True, map_location="cpu")
    model.load_state_dict(state["model"])
    if "optimizer" in state:
        optimizer.load_state_dict(state["optimizer"])
    return int(state["step"]), float(state.get("cpu_s", 0.0))


def train(
    plan: Plan,
    model: nn.Module,
    step: Step,
    work: Path,
    evaluate: Callable[[], dict[str, float]] | None = None,
    groups: list[dict[str, Any]] | None = None,
) -> None:
    """Run or resume `plan`; the checkpoint is WORK/train/NAME.pt, the log NAME.jsonl beside it.

    groups: AdamW parameter groups whose "lr" is relative to the plan's; all parameters by default.
    """
    folder = work / "train"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{plan.name}.pt"
    groups = groups or [{"params": list(model.parameters()), "lr": 1.0}]
    scales = [g["lr"] for g in groups]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), weight_decay=0.01)
    start, spent_s = resume(path, model, optimizer)
    journal = Journal(folder / f"{plan.name}.jsonl", spent_s)
    bar = tqdm(range(start, plan.steps), desc=plan.name, initial=start, total=plan.steps)
    for i in bar:
        for group, scale in zip(optimizer.param_groups, scales, strict=True):
            group["lr"] = plan.learning_rate * scale * plan.rate(i)
        torch.manual_seed(i)  # a run that was interrupted equals one that was not
        losses = step(i)
        optimizer.zero_grad(set_to_none=True)
        losses["loss"].backward()
        nn.utils.clip_grad_norm_(model.parameters(), plan.clip)
        optimizer.step()
        journal.add(losses)
        done = i + 1
        if done % plan.save_every == 0 or done == plan.steps:
            due = done % (5 * plan.save_every) == 0 or done == plan.steps
            row = journal.write(done, _score(model, evaluate) if due else {})
            bar.set_postfix({k: f"{v:.3f}" for k, v in row.items() if k != "cpu_s"})
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            facts = {"step": done, "cpu_s": journal.cpu_s, "plan": asdict(plan)}
            save_atomically(state | facts, path)


def _score(model: nn.Module, evaluate: Callable[[], dict[str, float]] | None) -> dict[str, float]:
    if evaluate is None:
        return {}
    model.eval()
    scores = evaluate()
    model.train()
    return scores
