"""Real speech into a tiny random model: whose turn it is, what is kept, and what is played."""

from __future__ import annotations

import numpy as np
import pytest
from duplex_room import (
    END_OF_SPEECH,
    assert_state_is_that_of_the_rows,
    configured,
    event,
    furnished,
    kinds,
    turns,
)
from spoken import question, silence

from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_event import Activity, Kind
from antiphon.runtime.errors import AudioError
from antiphon.runtime.playback import Playback
from antiphon.runtime.reply import Ending
from antiphon.runtime.turn_taking import TurnConfig
from benchmarks.room import Room

EXCHANGE = [Kind.SPEECH_START, Kind.PAUSE, Kind.ENDPOINT, Kind.REPLY_BEGAN, Kind.REPLY_ENDED]
PAD = 260


def test_the_playback_given_is_the_one_used(random_bundle):
    playback = Playback(4800)
    assert len(playback) == 0  # an empty queue is one nevertheless
    assert DuplexSession(random_bundle, playback=playback).playback is playback


def test_a_question_is_answered(random_bundle):
    room = furnished(random_bundle)
    start_s = room.talk.time_s
    room.speak(question())
    end_s = start_s + len(question()) / 16_000
    assert room.talk.activity is Activity.HEARING
    room.wait(Kind.REPLY_ENDED)
    assert kinds(room) == EXCHANGE
    assert abs(event(room, Kind.SPEECH_START).at_s - start_s) < 0.15
    assert abs(event(room, Kind.PAUSE).at_s - end_s) < 0.2
    endpoint, pause = event(room, Kind.ENDPOINT), event(room, Kind.PAUSE)
    assert endpoint.decided_s - endpoint.at_s == pytest.approx(0.9, abs=0.04)
    assert endpoint.at_s == pytest.approx(pause.at_s, abs=0.07)
    reply = event(room, Kind.REPLY_ENDED).reply
    assert reply is event(room, Kind.REPLY_BEGAN).reply
    assert (reply.finished, reply.heard_codes, len(reply.codes)) == (True, None, 25)
    played = np.trim_zeros(room.played)
    np.testing.assert_array_equal(played, np.trim_zeros(reply.pcm))
    assert room.talk.activity is Activity.LISTENING
    assert_state_is_that_of_the_rows(random_bundle, room.talk.session)


def test_the_prepared_reply_sounds_at_the_endpoint_and_the_other_later(random_bundle):
    """Forty jobs of 10 ms are needed before the first sound: they fit into the wait."""
    delays, rows = [], []
    for speculate in (True, False):
        room = furnished(random_bundle, speculate=speculate, job_s=0.01)
        room.speak(question())
        began = room.wait(Kind.REPLY_BEGAN)
        delays.append(began.at_s - event(room, Kind.ENDPOINT).decided_s)
        room.wait(Kind.REPLY_ENDED)
        rows.append(room.talk.session.conversation.rows.tolist())
    assert delays[0] < 0.02
    assert delays[1] > 0.15
    assert rows[0] == rows[1]  # it changes nothing else


def test_the_model_hears_the_turn_and_little_silence(random_bundle):
    room = furnished(random_bundle)
    room.speak(question())
    room.wait(Kind.REPLY_ENDED)
    heard_s = room.talk.session.metrics.heard_s
    assert 0.3 < heard_s - len(question()) / 16_000 < 0.55


@pytest.mark.parametrize("speculate", [True, False])
def test_a_pause_in_the_question_is_no_end(random_bundle, speculate):
    half = len(question()) // 2
    room = furnished(random_bundle, speculate=speculate)
    room.speak(np.concatenate([question()[:half], silence(700), question()[half:]]))
    room.wait(Kind.REPLY_ENDED)
    assert [k for k in kinds(room) if k is not Kind.PAUSE] == [
        Kind.SPEECH_START, Kind.RESUME, *EXCHANGE[2:]
    ]  # fmt: skip
    assert turns(room.talk.session) == 2  # one of each
    heard_s = room.talk.session.metrics.heard_s
    assert heard_s < len(question()) / 16_000 + 0.55 + 0.35  # of the pause, hardly a third
    assert_state_is_that_of_the_rows(random_bundle, room.talk.session)


def test_a_pause_after_half_a_word_is_hardly_heard_either(random_bundle):
    room = furnished(random_bundle)
    room.speak(np.concatenate([question()[3000:5000], silence(640), question()]))
    room.wait(Kind.REPLY_ENDED)
    assert kinds(room) == EXCHANGE
    silent_s = room.talk.session.metrics.heard_s - (len(question()) + 2000) / 16_000
    assert silent_s < 0.15 + 0.25 + 0.15 + 0.25  # before, twice after, and before it goes on


def test_who_interrupts_is_heard_and_the_history_ends_at_what_was_played(random_bundle):
    room = furnished(random_bundle)
    room.speak(question())
    room.wait(Kind.REPLY_BEGAN)
    first = room.talk.session.reply
    room.speak(silence(600))
    room.speak(question("color_grass"))
    held = event(room, Kind.INTERRUPTION)
    assert held.decided_s - held.at_s == pytest.approx(0.064)
    assert event(room, Kind.BARGE_IN).at_s == held.at_s
    heard = -(-samples_between(room, Kind.REPLY_BEGAN, Kind.INTERRUPTION) // 1920)
    assert (first.ending, first.heard_codes) == (Ending.CANCELLED, heard)
    room.wait(Kind.REPLY_ENDED)
    codes = room.talk.session.conversation.rows
    spoken = codes[(codes[:, 0] == PAD)][:, 1].tolist()
    after_question = spoken[spoken.index(END_OF_SPEECH) + 1 :]
    assert after_question[: heard + 1] == [*first.codes[:heard], END_OF_SPEECH]
    assert turns(room.talk.session) == 4
    assert_state_is_that_of_the_rows(random_bundle, room.talk.session)


def samples_between(room, first, then):
    """Samples the loudspeaker got between two events, a block after the second one."""
    start, stop = (
        next(n.event.decided_s for n in room.noted if n.event.kind is kind)
        for kind in (first, then)
    )
    return len(np.trim_zeros(room.played[round(start * 24_000) : round(stop * 24_000) + 240]))


def test_what_the_device_has_not_played_was_not_heard(random_bundle):
    talk = DuplexSession(
        random_bundle, configured(random_bundle), heard=lambda: talk.playback.position - 9_600
    )
    room = Room(talk, cost=lambda job: 0.001 if job else 0.0)
    room.speak(question())
    room.wait(Kind.REPLY_BEGAN)
    reply = talk.session.reply
    room.speak(silence(800))
    played = talk.session.outlet._first
    room.speak(question())
    assert event(room, Kind.BARGE_IN).reply is reply
    position = reply.heard_codes * 1920
    assert 0 < position < talk.playback.position - played - 7_680


def test_who_goes_on_right_after_the_end_was_not_finished(random_bundle):
    """The reply has begun, but nobody reacts in a tenth of a second."""
    half = len(question()) // 2
    room = furnished(random_bundle, turns=TurnConfig(endpoint_ms=400.0))
    room.speak(question()[:half])
    room.wait(Kind.REPLY_BEGAN)
    reply = room.talk.session.reply
    room.speak(question()[half:])
    room.wait(Kind.REPLY_ENDED)
    assert (reply.ending, reply.heard_codes) == (Ending.CANCELLED, 0)
    happened = [k for k in kinds(room) if k not in (Kind.PAUSE, Kind.INTERRUPTION)]
    assert happened == [
        Kind.SPEECH_START, Kind.ENDPOINT, Kind.REPLY_BEGAN,
        Kind.RESUME, Kind.REPLY_ENDED, Kind.ENDPOINT, Kind.REPLY_BEGAN, Kind.REPLY_ENDED,
    ]  # fmt: skip
    assert turns(room.talk.session) == 2
    assert_state_is_that_of_the_rows(random_bundle, room.talk.session)


def test_a_short_noise_does_not_end_the_reply(random_bundle):
    room = furnished(random_bundle)
    room.speak(question())
    room.wait(Kind.REPLY_BEGAN)
    room.speak(silence(500))
    room.speak(question()[3000:7000])  # a quarter of a second
    room.wait(Kind.REPLY_ENDED)
    assert kinds(room)[4:] == [Kind.INTERRUPTION, Kind.FALSE_INTERRUPTION, Kind.REPLY_ENDED]
    reply = event(room, Kind.REPLY_ENDED).reply
    assert (reply.heard_codes, reply.ending) == (None, Ending.TRUNCATED)
    assert room.talk.playback.position >= len(reply.pcm)
    silent = (np.abs(room.played).reshape(-1, 240).max(axis=1) == 0)[100:]
    assert silent.sum() > 40  # it was held …
    assert len(np.trim_zeros(room.played)) > len(reply.pcm) + 24_000 * 0.4  # … and went on


def test_a_noise_in_the_silence_is_no_turn(random_bundle):
    room = furnished(random_bundle)
    rows = room.talk.session.conversation.rows.tolist()
    room.speak(question()[3000:4800])
    room.wait(Kind.DROPPED, limit_s=3)
    assert kinds(room) in ([Kind.SPEECH_START, Kind.DROPPED], [])
    assert room.talk.session.conversation.rows.tolist() == rows
    room.speak(question())
    assert room.wait(Kind.REPLY_BEGAN)


def test_a_turn_without_end_is_answered_nevertheless(random_bundle):
    room = furnished(random_bundle, turns=TurnConfig(most_turn_ms=1900.0))
    room.speak(np.tile(question(), 2))
    assert kinds(room)[:3] == [Kind.SPEECH_START, Kind.ENDPOINT, Kind.REPLY_BEGAN]
    assert Kind.INTERRUPTION not in kinds(room)  # before there was silence nobody interrupts


def test_a_turn_that_does_not_fit_is_told(random_bundle):
    room = furnished(random_bundle, session={"capacity_rows": 40, "chunk_rows": 4})
    rows = room.talk.session.conversation.rows.tolist()
    room.speak(np.tile(question(), 2))
    room.speak(silence(1500))
    dropped = event(room, Kind.DROPPED)
    assert "raise capacity_rows" in dropped.reason
    assert room.talk.session.conversation.rows.tolist() == rows
    assert room.talk.activity is Activity.LISTENING


def test_a_written_reply_is_interrupted_by_speaking(random_bundle):
    room = furnished(random_bundle, reply="text", tokens=60, job_s=0.04)
    room.speak(question())
    began = room.wait(Kind.REPLY_BEGAN)
    room.speak(silence(300))
    room.speak(question("color_grass"))
    assert event(room, Kind.BARGE_IN).reply is began.event.reply
    assert began.event.reply.ending is Ending.CANCELLED
    assert began.event.reply.text
    assert room.wait(Kind.REPLY_BEGAN)


# keys


def test_push_to_talk(random_bundle):
    room = furnished(random_bundle, push_to_talk=True, turns=TurnConfig(preroll_ms=100.0))
    talk = room.talk
    talk.press()
    talk.press()  # a key that repeats
    room.speak(question())
    assert talk.activity is Activity.HEARING
    talk.release()
    talk.release()
    assert talk.session.metrics.heard_s == pytest.approx(len(question()) / 16_000, abs=0.01)
    room.wait(Kind.REPLY_BEGAN)
    first = talk.session.reply
    room.speak(np.concatenate([question(), silence(200)]))  # nobody pressed the key
    talk.press()
    room.speak(silence(100))
    talk.release()
    room.wait(Kind.REPLY_ENDED)
    assert first.ending is Ending.CANCELLED
    assert kinds(room) == [
        Kind.SPEECH_START, *EXCHANGE[2:4],
        Kind.BARGE_IN, Kind.REPLY_ENDED, *EXCHANGE[2:],
    ]  # fmt: skip


@pytest.mark.parametrize("moment", ["silence", "question", "pause", "thinking", "reply", "noise"])
@pytest.mark.parametrize("then", ["stop", "say"])
def test_stopping_at_any_moment(random_bundle, moment, then):
    room = furnished(random_bundle, job_s=0.02)
    if moment != "silence":
        room.speak(question())
    if moment == "pause":
        room.speak(silence(400))
    elif moment == "thinking":
        room.wait(Kind.ENDPOINT)
    elif moment in ("reply", "noise"):
        room.wait(Kind.REPLY_BEGAN)
        room.speak(silence(400))
    if moment == "noise":
        room.speak(question()[3000:5500])
        assert room.talk.activity is Activity.INTERRUPTED
    if then == "say":
        room.talk.say("Hello")
        room.wait(Kind.REPLY_BEGAN)
        room.wait(Kind.REPLY_ENDED)
        assert room.talk.session.reply.finished
    else:
        room.talk.stop()
        room.speak(silence(1500))
    assert room.talk.activity is Activity.LISTENING
    assert not room.talk.playback.held
    assert_state_is_that_of_the_rows(random_bundle, room.talk.session)
    room.speak(question())
    assert room.wait(Kind.REPLY_BEGAN)


def test_bad_audio_is_refused(random_bundle):
    talk = DuplexSession(random_bundle, configured(random_bundle))
    with pytest.raises(AudioError, match="expected as many"):
        talk.hear(np.zeros(160), np.zeros(80))
    with pytest.raises(AudioError):
        talk.hear(np.full(160, np.nan))
    talk.hear(np.zeros(0))
