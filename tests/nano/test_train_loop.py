"""Training that is stopped goes on as if it had not been."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from nano.train import loop
from nano.train.loop import Plan, train

PLAN = Plan(name="line", steps=6, learning_rate=0.1, warmup=2, save_every=2)


class Clock:
    """CPU time of one process: two seconds a step."""

    def __init__(self):
        self.now = 0.5  # before the first step

    def process_time(self):
        return self.now


def run(work, monkeypatch, until=None):
    """Train in a process of its own, which dies in step `until`; returns the model."""
    clock = Clock()
    monkeypatch.setattr(loop, "time", SimpleNamespace(process_time=clock.process_time))
    torch.manual_seed(3)
    model = nn.Linear(4, 1)

    def step(number):
        if number == until:
            raise KeyboardInterrupt
        clock.now += 2
        return {"loss": (model(torch.randn(8, 4)) - 1).square().mean()}

    if until is None:
        train(PLAN, model, step, work)
    else:
        with pytest.raises(KeyboardInterrupt):
            train(PLAN, model, step, work)
    return model


def test_a_stopped_training_equals_one_that_was_not(tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", monkeypatch)
    run(tmp_path / "stopped", monkeypatch, until=3)
    went_on = run(tmp_path / "stopped", monkeypatch)
    assert torch.equal(whole.weight, went_on.weight)
    logs = [tmp_path / name / "train" / "line.jsonl" for name in ("whole", "stopped")]
    rows = [[json.loads(line) for line in log.read_text().splitlines()] for log in logs]
    assert rows[0] == rows[1]
    assert [row["cpu_s"] for row in rows[1]] == [4, 8, 12]


def test_without_its_optimizer_a_stage_trains_on_all_the_same(tmp_path, monkeypatch):
    run(tmp_path, monkeypatch, until=3)
    path = tmp_path / "train" / "line.pt"
    state = torch.load(path, weights_only=True)
    del state["optimizer"]
    torch.save(state, path)
    before = state["model"]["weight"]
    assert not torch.equal(run(tmp_path, monkeypatch).weight, before)
    steps = [
        json.loads(line)["step"] for line in path.with_suffix(".jsonl").read_text().splitlines()
    ]
    assert steps == [2, 4, 6]
