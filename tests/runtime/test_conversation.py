"""A conversation saved and gone on with."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from antiphon.runtime.conversation import Conversation
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig


def make(random_bundle, capacity_rows):
    sampling = replace(random_bundle.manifest.sampling, max_new_tokens=8, do_sample=False)
    config = SessionConfig(
        reply="text", sampling=sampling, capacity_rows=capacity_rows, chunk_rows=16
    )
    return Session(random_bundle, config)


@pytest.fixture(scope="module")
def session(random_bundle):
    return make(random_bundle, 160)


def talk(session, *texts):
    replies = []
    for text in texts:
        session.say(text)
        replies.append(session.run_reply().text)
    return replies


def saved_and_read(session):
    return Conversation.from_dict(json.loads(json.dumps(session.conversation.as_dict())))


def test_it_goes_on_where_it_was(session):
    session.reset()
    talk(session, "one", "two")
    saved, after = saved_and_read(session), talk(session, "three", "four")
    rows, turns = session.conversation.rows.tolist(), session.conversation.turns
    session.reset()
    talk(session, "something else")
    session.restore(saved)
    assert talk(session, "three", "four") == after
    assert session.conversation.rows.tolist() == rows
    assert session.conversation.turns == turns


def test_a_copy_is_kept(session):
    session.reset()
    talk(session, "one")
    saved = session.conversation
    rows = saved.rows.tolist()
    session.reset()
    talk(session, "another")
    assert saved.rows.tolist() == rows


def test_of_a_long_one_the_newest_turns_are_kept(session, random_bundle):
    long = make(random_bundle, 400)
    talk(long, *(f"question number {n}" for n in range(9)))
    saved = saved_and_read(long)
    session.restore(saved)
    system = len(session._stages.system)
    kept = session.conversation.rows[system:].tolist()
    assert 0 < len(kept) < len(saved.rows) - system
    assert saved.rows[-len(kept) :].tolist() == kept
    assert len(saved.rows) - len(kept) in saved.turns  # whole turns
    assert session._lm.free >= session._spare_rows
    assert talk(session, "and now?")[0]


def test_the_last_turn_is_kept_however_long(session):
    session.reset()
    start, most = session.length, session._lm.free - session._spare_rows
    talk(session, "a" * (most - 10))
    saved = saved_and_read(session)
    assert len(saved.rows) - start > most
    session.restore(saved)
    assert session.conversation.rows.tolist() == saved.rows.tolist()


def test_one_without_turns(session):
    session.reset()
    saved = saved_and_read(session)
    session.restore(saved)
    assert session.conversation.rows.tolist() == saved.rows.tolist()
    assert talk(session, "hello")[0]


@pytest.mark.parametrize(
    "raw",
    [
        None,
        {},
        {"rows": [[1, 2]]},
        {"rows": [[1, 2], [3]], "turns": []},
        {"rows": [[1.5, 2.0]], "turns": []},
        {"rows": [1, 2], "turns": []},
        {"rows": [[1, 2]], "turns": [[0]]},
        {"rows": [[1, "two"]], "turns": []},
        {"rows": [[1, 2]], "turns": [10**30]},
    ],
)
def test_what_is_none_is_refused(raw):
    with pytest.raises(ConfigError, match="saved conversation"):
        Conversation.from_dict(raw)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows, turns: ([*rows, [9999, 0]], turns), "this model 0"),
        (lambda rows, turns: ([*rows, [0, -1]], turns), "this model 0"),
        (lambda rows, turns: (rows[1:], turns), "another system turn"),
        (lambda rows, turns: ([], []), "another system turn"),
        (lambda rows, turns: (rows, [*turns, 5]), "has turns at"),
        (lambda rows, turns: (rows, [*turns, len(rows) + 1]), "has turns at"),
        (lambda rows, turns: (rows, turns[1:]), "has turns at"),
        (lambda rows, turns: (rows, []), "has turns at"),
    ],
)
def test_one_of_another_model_is_refused(session, change, message):
    session.reset()
    talk(session, "one", "two")
    before, raw = session.conversation.rows.tolist(), session.conversation.as_dict()
    rows, turns = change(raw["rows"], raw["turns"])
    changed = Conversation(np.array(rows, np.int64).reshape(-1, 2), tuple(turns))
    with pytest.raises(ConfigError, match=message):
        session.restore(changed)
    assert session.conversation.rows.tolist() == before
