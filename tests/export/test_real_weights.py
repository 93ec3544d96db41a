"""The published checkpoint: `pytest -m real_weights --real-weights FOLDER`, with 40 GB of room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from published import IDS

from antiphon.export.checkpoint import Checkpoint
from antiphon.export.inspect import inspect
from antiphon.export.pipeline import export
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.enrol import Recording
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig
from antiphon.runtime.text import TextTokenizer

pytestmark = pytest.mark.real_weights

NANO = Path(__file__).parents[2] / "nano" / "bundle" / "questions"


def test_nothing_is_missing_and_nothing_is_wrong(real_weights: Path) -> None:
    found = inspect(real_weights)
    assert found.problems == []
    assert found.parameters["lm"] == 9_095_694_336


def test_the_ids_are_those_of_the_contract(real_weights: Path) -> None:
    tokenizer = TextTokenizer(Checkpoint.open(real_weights).tokenizer_json)
    for text, ids in IDS["templates"].items():
        assert tokenizer.encode(text) == ids
    for text, ids in IDS["content"].items():
        assert tokenizer.encode_plain(text) == ids


def test_it_answers(real_weights: Path, tmp_path: Path) -> None:
    sound = [soundfile.read(path, dtype="float32") for path in sorted(NANO.glob("*.flac"))[:3]]
    voice = Recording("questions", np.concatenate([pcm for pcm, _ in sound]), sound[0][1])
    export(real_weights, tmp_path / "int4", weights="int4", voices={"nano": voice}, parity=False)
    session = Session(Bundle.open(tmp_path / "int4"), SessionConfig(reply="text"))
    session.say("How much is two plus two? Answer with one word.")
    assert session.run_reply().text.strip(" .!\n").lower() in ("four", "4")
