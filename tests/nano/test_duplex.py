"""The bundled model asked through microphone and loudspeaker of a room without devices."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from spoken import FOLDER, question, silence

from antiphon.runtime.bundle import Bundle
from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_config import DuplexConfig
from antiphon.runtime.duplex_event import Kind
from antiphon.runtime.session_config import SessionConfig
from benchmarks.room import Room

QUESTIONS = json.loads((FOLDER / "questions.json").read_text())


@pytest.fixture(scope="module")
def bundle():
    return Bundle.open(Path(FOLDER).parent)


def furnished(bundle, reply):
    config = DuplexConfig(session=SessionConfig(reply=reply))
    return Room(DuplexSession(bundle, config), cost=lambda job: 0.002 if job else 0.0)


def test_questions_are_answered_one_after_the_other(bundle):
    """Written answers, because they can be read; every second question with a pause in it."""
    room, wrong = furnished(bundle, "text"), []
    for number, (name, asked) in enumerate(QUESTIONS.items()):
        pcm, middle = question(name), len(question(name)) // 2
        quiet = middle + int(np.argmin(np.convolve(pcm[middle:] ** 2, np.ones(960), "valid")))
        pause = silence(600 * (number % 2))
        room.talk.session.reset()
        room.speak(np.concatenate([silence(700), pcm[: quiet + 480], pause, pcm[quiet + 480 :]]))
        ended = room.wait(Kind.REPLY_ENDED)
        if ended is None or ended.event.reply.text != asked["reply"]:
            wrong.append((name, ended and ended.event.reply.text))
    assert len(wrong) <= 1, wrong
    assert [n.event.kind for n in room.noted].count(Kind.ENDPOINT) == len(QUESTIONS)


def test_an_interruption_is_answered_instead(bundle):
    room = furnished(bundle, "speech")
    room.speak(np.concatenate([silence(500), question("capital_france")]))
    room.wait(Kind.REPLY_BEGAN)
    first = room.talk.session.reply
    room.speak(silence(500))
    room.speak(question("color_grass"))
    (barge_in,) = [n for n in room.noted if n.event.kind is Kind.BARGE_IN]
    held = next(n for n in room.noted if n.event.kind is Kind.INTERRUPTION)
    assert barge_in.event.reply is first
    assert 0 < first.heard_codes < len(first.codes)
    silent = room.played[round((held.at_s + 0.02) * 24_000) : round(barge_in.at_s * 24_000)]
    assert not silent.any()
    room.wait(Kind.REPLY_BEGAN)
    ended = room.wait(Kind.REPLY_ENDED)
    assert ended.event.reply.finished
    assert np.abs(room.played[-48_000:]).max() > 0.05
