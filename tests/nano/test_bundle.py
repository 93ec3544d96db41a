"""The shipped model really answers: recorded questions in, judged answers out."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from antiphon.apps import questions
from antiphon.runtime.bundle import Bundle
from antiphon.runtime.resample import resample
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig
from nano.judges import GrammarJudge, normalise

BUNDLE = Path(__file__).parents[2] / "nano" / "bundle"
QUESTIONS = questions.load(BUNDLE)


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(BUNDLE)


@pytest.fixture(scope="module")
def spoken(bundle):
    return Session(bundle)


@pytest.fixture(scope="module")
def written(bundle):
    return Session(bundle, SessionConfig(reply="text"))


@pytest.fixture(scope="module")
def judge():
    pytest.importorskip("pocketsphinx", reason="has no wheel for this Python")
    return GrammarJudge()


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.name)
def test_a_spoken_question_gets_the_right_spoken_answer(spoken, judge, question):
    pcm, rate_hz = soundfile.read(question.path, dtype="float32")
    spoken.reset()
    spoken.listen(resample(pcm, rate_hz, 16000))
    reply = spoken.run_reply()
    assert judge.hear(resample(reply.pcm, 24000, 16000)) == normalise(question.reply)


@pytest.mark.parametrize("question", QUESTIONS, ids=lambda q: q.name)
def test_a_written_question_gets_the_right_written_answer(written, question):
    written.reset()
    written.say(question.text)
    assert written.run_reply().text == question.reply


def test_the_second_turn_is_answered_as_well(written):
    written.reset()
    for question in QUESTIONS[:3]:
        written.say(question.text)
        assert written.run_reply().text == question.reply


def test_the_bundle_is_small_enough_to_ship():
    assert sum(f.stat().st_size for f in BUNDLE.rglob("*") if f.is_file()) <= 25_000_000
