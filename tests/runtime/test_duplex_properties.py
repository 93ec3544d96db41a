"""Duplex conversations of every kind: any block sizes, any job times, rings that wrap."""

from __future__ import annotations

import numpy as np
from duplex_room import configured, furnished, kinds
from hypothesis import given, settings
from hypothesis import strategies as st
from spoken import question, silence

from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_event import Activity, Kind
from antiphon.runtime.session import Session
from benchmarks.room import Room


@settings(max_examples=3)
@given(blocks=st.lists(st.integers(1, 3000), min_size=1, max_size=20))
def test_block_sizes_change_nothing(random_bundle, blocks):
    """Up to the endpoint; then it matters how much was played meanwhile."""
    half = len(question()) // 2
    pcm = np.concatenate([silence(333), question()[:half], silence(500), question()[half:]])
    pcm = np.concatenate([pcm, silence(1300)])
    runs = []
    for sizes in (blocks, [160]):
        talk = DuplexSession(random_bundle, configured(random_bundle, tokens=3))
        at, told = 0, []
        while at < len(pcm):
            size = sizes[len(told) % len(sizes)]
            talk.hear(pcm[at : at + size])
            at += size
            told.append(talk.events())
            while talk.step().value != "wait":
                pass
        found = [e for some in told for e in some if e.reply is None]
        runs.append((found, talk.session.conversation.rows.tolist()))
    assert runs[0] == runs[1]
    assert [e.kind for e in runs[0][0]][-1] is Kind.ENDPOINT


PIECES = st.sampled_from(
    [question(), question("color_grass"), question()[3000:7000], question()[:16_000]]
)


@settings(max_examples=4)
@given(
    heard=st.lists(st.tuples(PIECES, st.integers(50, 2500)), min_size=2, max_size=4),
    costs=st.lists(st.floats(0.0, 0.04), min_size=1, max_size=20),
    speculate=st.booleans(),
)
def test_no_conversation_gets_stuck(random_bundle, heard, costs, speculate):
    """Random speech, silence and job times, in a ring that wraps."""
    small = {"capacity_rows": 128, "chunk_rows": 8}
    talk = DuplexSession(
        random_bundle, configured(random_bundle, tokens=12, session=small, speculate=speculate)
    )
    left = iter(costs * 5000)
    room = Room(talk, cost=lambda job: next(left) if job else 0.0)
    for pcm, gap_ms in heard:
        room.speak(pcm)
        room.speak(silence(gap_ms))
    room.speak(silence(6000))
    assert talk.activity is Activity.LISTENING
    assert not talk.playback.held
    told = kinds(room)
    assert told.count(Kind.REPLY_BEGAN) <= told.count(Kind.ENDPOINT)
    assert told.count(Kind.INTERRUPTION) >= told.count(Kind.FALSE_INTERRUPTION)
    ended = [n.event for n in room.noted if n.event.kind is Kind.REPLY_ENDED]
    assert all(e.reply.finished for e in ended)
    first = Session(random_bundle, talk.config.session).conversation.rows.tolist()
    assert talk.session.conversation.rows[: len(first)].tolist() == first
    held = [n for n in room.noted if n.event.kind is Kind.INTERRUPTION]
    assert all(n.at_s - n.event.decided_s <= max(costs) + 0.011 for n in held)  # within one job


def test_a_long_conversation(random_bundle):
    """The ring is wrapped again and again, every third reply is interrupted."""
    small = {"capacity_rows": 128, "chunk_rows": 8}
    room = furnished(random_bundle, tokens=12, session=small)
    session, sizes = room.talk.session, []
    for exchange in range(9):
        room.speak(question())
        room.wait(Kind.REPLY_BEGAN)
        if exchange % 3:
            room.wait(Kind.REPLY_ENDED)
        room.speak(silence(300))
        sizes.append(session._lm.nbytes)
    assert session.length > 2 * 128
    assert len(session.conversation.rows) <= 128
    assert len(set(sizes[4:])) == 1
    assert kinds(room).count(Kind.REPLY_BEGAN) == 9
    assert kinds(room).count(Kind.BARGE_IN) in (2, 3)
