"""One part quantized at a time: as if the whole model had been run for each."""

import numpy as np
import pytest
import torch
from tiny_session import LM

from antiphon.export.checkpoint import Checkpoint, load_reference
from antiphon.export.proof.dialogues import Question
from antiphon.export.proof.grids import answered, some
from antiphon.export.proof.sensitivity import sensitivity
from antiphon.quant.blocks import dequantize, quantize
from antiphon.quant.recipe import Recipe, Rule
from antiphon.quant.schemes import INT4_B32
from antiphon.runtime.errors import ConfigError

QUESTIONS = [Question("a", None, "Why?"), Question("b", np.full(4000, 0.1, "f4"), None)]


@pytest.fixture(scope="module")
def source(random_bundle) -> Checkpoint:
    return Checkpoint.open(random_bundle.path.parent / "checkpoint")


@pytest.fixture(scope="module")
def grids(random_bundle, source):
    return list(answered(random_bundle, source, QUESTIONS))


@pytest.fixture(scope="module")
def losses(source, grids):
    return {loss.part: loss for loss in sensitivity(source, grids, scheme="int4_b32")}


def test_every_part_is_measured_where_it_is_heard(losses):
    heads = {part: set(loss.kl) for part, loss in losses.items()}
    both = {"speech", "text"}
    assert heads == {
        "embedding tables": both,
        "trunk layer 0": both,
        "trunk, all layers": both,
        "speech_branch layer 0": {"speech"},
        "speech_branch, all layers": {"speech"},
        "speech_branch head": {"speech"},
        "text_branch layer 0": {"text"},
        "text_branch, all layers": {"text"},
        "text_branch head": {"text"},
    }
    assert [p for p, loss in losses.items() if not 0 < loss.worst < 1] == []
    worst = [loss.worst for loss in losses.values()]
    assert worst == sorted(worst, reverse=True)
    assert losses["trunk layer 0"].kl == losses["trunk, all layers"].kl  # there is only one


@pytest.mark.parametrize(
    ("part", "head", "prefix"),
    [
        ("trunk layer 0", "text", "model.shared_block.layers.0."),
        ("trunk layer 0", "speech", "model.shared_block.layers.0."),
        ("speech_branch layer 0", "speech", "model.audio_block.layers.0."),
        ("text_branch head", "text", "text_lm_head."),
    ],
)
@torch.no_grad()
def test_the_loss_is_that_of_the_whole_model(part, head, prefix, losses, source, grids):
    exact, lossy = (load_reference(source.directory).lm for _ in range(2))
    for name, weight in lossy.named_parameters():
        if name.startswith(prefix) and weight.ndim == 2:
            weight.copy_(torch.from_numpy(dequantize(quantize(weight.numpy(), INT4_B32))))
    kl = []
    for grid in grids:
        drawn = grid[1:, 0] == LM.modality_pad_token_id
        start = np.flatnonzero(grid[:, 0] == 257)[-1]  # of the reply's turn
        pair = [model(torch.from_numpy(grid)[None]) for model in (exact, lossy)]
        text, audio = ([logits[i][0, :-1].double() for logits in pair] for i in (0, 1))
        if head == "speech":
            rows = np.flatnonzero(drawn & (np.arange(len(drawn)) > start))
            p, q = (torch.log_softmax(x[rows, : LM.eosp_token_id + 1], 1) for x in audio)
        elif drawn[-5:].any() or grid[start + 11, 0] == 259:
            continue
        else:
            stop = np.flatnonzero(grid[:, 0] == 258)
            stop = [s for s in [*stop, *np.flatnonzero(grid[:, 0] == 256)] if s > start]
            rows = np.arange(start + 10, (min(stop) if stop else len(grid)))
            legal = torch.arange(LM.vocab_size) != LM.modality_pad_token_id
            p, q = (torch.log_softmax(x[rows][:, legal], 1) for x in text)
        kl.append((p.exp() * (p - q)).sum(1))
    assert float(torch.cat(kl).mean()) == pytest.approx(losses[part].kl[head], rel=1e-3, abs=1e-9)


def test_the_rule_stated_means_the_part(losses, source):
    names = [f"trunk/{n}" for n in source.shapes("lm") if ".shared_block." in n]
    rule = Rule(losses["trunk layer 0"].match, INT4_B32)
    assert all(map(rule.matches, names))
    assert Recipe("one", (rule,)).scheme_of(names[0]) == INT4_B32
    assert losses["trunk layer 0"].nbytes < losses["text_branch head"].nbytes * 4


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"scheme": "int3"}, "unknown scheme 'int3'"),
        ({"scheme": "fp16"}, "no loss worth measuring"),
        ({"scheme": "int4_b128"}, "block 128 does not divide 64 inputs; blocks of 64"),
        ({"scheme": "int8", "method": "magic"}, "unknown method 'magic'"),
    ],
)
def test_what_cannot_be_is_refused_before_the_dialogues_are_made(settings, said, source):
    def unasked():
        raise AssertionError
        yield

    with pytest.raises(ConfigError, match=said):
        sensitivity(source, unasked(), **settings)


def test_dialogues_without_a_reply_are_refused(source, grids):
    with pytest.raises(ConfigError, match="no reply"):
        sensitivity(source, [grids[0][:5]], scheme="int8")


def test_enough_rows_are_taken(grids):
    assert len(list(some(grids, 1))) == 1
    assert len(list(some(grids, sum(map(len, grids[:2]))))) == 2
    assert len(list(some(grids, 10**6))) == len(grids)
