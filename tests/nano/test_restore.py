"""A checkpoint taken apart into stages is assembled to the same one."""

import json

import pytest
import torch
from spoken import FOLDER

from antiphon.export.checkpoint import load_reference
from nano.train import assemble
from nano.train.restore import restore
from nano.train.tokens import trained_tokenizer

CHECKPOINT = FOLDER.parents[1] / "checkpoint"
PARTS = ("lm", "tokenizer", "flow", "hift")


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    work = tmp_path_factory.mktemp("work")
    restore(CHECKPOINT, work)
    return work


def test_the_parts_are_those_of_the_checkpoint(work):
    made, kept = assemble.reference(work), load_reference(CHECKPOINT)
    for part in PARTS:
        ours, theirs = getattr(made, part).state_dict(), getattr(kept, part).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs), part
    assert trained_tokenizer(work).state_dict().keys() == kept.tokenizer.state_dict().keys()


def test_so_is_their_history(work):
    told, known = assemble.history(work), json.loads((CHECKPOINT / "training.json").read_text())
    assert {name: told[name] for name in known if name != "recordings"} == {
        name: row for name, row in known.items() if name != "recordings"
    }


def test_a_stage_that_is_there_is_not_overwritten(work):
    before = {path: path.read_bytes() for path in (work / "train").iterdir()}
    with pytest.raises(SystemExit, match=r"\.pt is there already: name another --work"):
        restore(CHECKPOINT, work)
    assert {path: path.read_bytes() for path in (work / "train").iterdir()} == before
