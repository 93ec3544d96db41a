"""What the language model is trained on is what the runtime shows it."""

import numpy as np
import pytest
from spoken import FOLDER, question
from tokenizers import Tokenizer

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.session import Session
from nano.train import dialogues
from nano.train.corpus import pause
from nano.train.dialogues import FALLBACK_ID, DialogueMaker, Material

NANO = FOLDER.parent
CODE_SAMPLES = 1920  # of the reply, at 24 kHz


def spoken_rows(rows, tokens):
    return np.flatnonzero((rows[:, 0] == tokens.modality_pad) & (rows[:, 1] < tokens.eosp))


@pytest.fixture(scope="module")
def session():
    return Session(Bundle.open(NANO))


@pytest.fixture
def maker(session, monkeypatch):
    """Knows one question with one answer, and forgets or mishears nothing."""
    monkeypatch.setattr(dialogues, "add_noise", lambda codes, rng: codes)
    session.reset()
    session.listen(question())
    answer = session.run_reply().codes
    rows = session.conversation.rows
    heard = rows[spoken_rows(rows, session.manifest.tokens)][: -len(answer), 1]
    material = Material(reply_codes={FALLBACK_ID: np.array(answer)}, reply_text={FALLBACK_ID: ""})
    material.spoken[FALLBACK_ID].append((heard, ""))
    return DialogueMaker(material, Tokenizer.from_file(str(NANO / "tokenizer.json")))


@pytest.mark.parametrize("seed", range(3))
def test_an_interrupted_answer_is_remembered_as_in_training(session, maker, monkeypatch, seed):
    monkeypatch.setattr(dialogues, "INTERRUPTED", 1.0)
    taught, scored = maker.dialogue(True, 2, np.random.default_rng(seed), 1.0)
    (heard, _), answer = maker.material.spoken[FALLBACK_ID][0], maker.reply(FALLBACK_ID, True)
    spoken = spoken_rows(taught, session.manifest.tokens)
    kept = len(spoken) - 2 * len(heard) - len(answer)
    assert 0 < kept < len(answer)
    session.reset()
    session.listen(question())
    session.run_reply()
    session.cancel(kept * CODE_SAMPLES)
    session.listen(question())
    session.run_reply()
    known = spoken[-len(answer)]  # up to here nothing depends on the second answer
    assert np.array_equal(session.conversation.rows[:known], taught[:known])
    first = spoken[len(heard) : len(heard) + kept]
    last = np.arange(known, len(taught) - 1)  # the newline is the template's
    assert np.array_equal(np.flatnonzero(scored), np.concatenate((first, last)))


def test_of_what_went_before_nothing_is_scored(maker):
    rng = np.random.default_rng(0)
    before = maker.turns(True, 2, rng, 1.0)
    asked = maker.question(FALLBACK_ID, True, rng)
    alone, marks = maker.exchange(asked, FALLBACK_ID, True)
    later, later_marks = maker.exchange(asked, FALLBACK_ID, True, before)
    assert len(later) == len(alone) + sum(len(rows) for rows, _ in before)
    assert later_marks.sum() == marks.sum()
    assert np.array_equal(later[later_marks], alone[marks])


@pytest.mark.parametrize("seed", range(5))
def test_a_pause_adds_silence_and_takes_nothing(seed):
    rng = np.random.default_rng(seed)
    pcm = (0.1 * rng.standard_normal(32_000)).astype(np.float32)
    paused = pause(pcm, rng)
    quiet = np.flatnonzero(paused == 0)
    assert 0.15 * 16_000 <= len(paused) - len(pcm) <= 16_000
    assert len(paused) - len(pcm) <= len(quiet) == quiet[-1] - quiet[0] + 1
    assert np.array_equal(paused[: quiet[0] - 80], pcm[: quiet[0] - 80])
    after = len(paused) - quiet[-1] - 81
    assert np.array_equal(paused[-after:], pcm[-after:])


def test_what_is_too_short_for_a_pause_stays_as_it_is():
    pcm = np.ones(9000, np.float32)
    assert pause(pcm, np.random.default_rng(0)) is pcm
