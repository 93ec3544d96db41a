"""Conversations with a tiny random model: exact rows, any block sizes, every way to interrupt."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_session import AUDIO_PAD, CODES

from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.encoder import SpeechEncoder
from antiphon.runtime.errors import (
    AntiphonError,
    AudioError,
    BundleError,
    CapacityError,
    ConfigError,
)
from antiphon.runtime.lm import LanguageModel
from antiphon.runtime.metrics import WATERFALL, TurnMetrics
from antiphon.runtime.reply import Ending
from antiphon.runtime.sampling import Sampler
from antiphon.runtime.scheduler import Job, SchedulerConfig
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig

END, SOSP, PAD = 258, 259, 260
NEWLINE = 198  # of the byte-level alphabet, as it happens also the real id


def question(samples: int = 5000, seed: int = 3) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


@pytest.fixture(scope="module")
def bundle(random_bundle):
    return random_bundle


def configured(bundle, reply="speech", *, tokens=12, **changes):
    """Greedy replies of at most `tokens` rows."""
    sampling = replace(bundle.manifest.sampling, max_new_tokens=tokens, do_sample=False)
    return SessionConfig(reply=reply, sampling=sampling, **changes)


@pytest.fixture(scope="module")
def spoken(bundle):
    return Session(bundle, configured(bundle))


@pytest.fixture(scope="module")
def written(bundle):
    return Session(bundle, configured(bundle, "text"))


def text_rows(*pieces):
    """Rows of ids and of strings, one id per byte."""
    ids = []
    for piece in pieces:
        ids += [piece] if isinstance(piece, int) else _bytes(piece)
    return [[i, AUDIO_PAD] for i in ids]


def _bytes(text):
    return [_ALPHABET.index(c) for c in text.replace("\n", "Ċ").replace(" ", "Ġ")]


def _alphabet():
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


_ALPHABET = _alphabet()


def test_rows_of_a_spoken_exchange(bundle, spoken):
    """Contract B.3, C.2: nothing more, nothing less, nothing in another order."""
    spoken.reset()
    encoder = SpeechEncoder(bundle)
    codes = np.concatenate([encoder.push(question()), encoder.finish()])
    spoken.listen(question())
    reply = spoken.run_reply()
    expected = text_rows(257, "system\n", "Speak.", END, "\n", 257, "user\n", SOSP)
    expected += [[PAD, c] for c in codes] + [[PAD, CODES]]
    expected += text_rows(END, "\n", 257, "assistant\n", SOSP)
    expected += [[PAD, c] for c in reply.codes] + [[PAD, CODES]] + text_rows(END, "\n")
    assert spoken.conversation.rows.tolist() == expected
    assert len(codes) == 4
    assert text_rows("\n") == [[NEWLINE, AUDIO_PAD]]


@pytest.mark.parametrize("ask", ["speech", "text"])
@pytest.mark.parametrize("answer", ["speech", "text"])
def test_all_four_tasks(ask, answer, spoken, written):
    session = spoken if answer == "speech" else written
    session.reset()
    if ask == "speech":
        session.listen(question())
    else:
        session.say("Who are you?")
    reply = session.run_reply()
    assert reply.finished
    assert reply.ending in (Ending.COMPLETE, Ending.TRUNCATED)
    assert len(reply.pcm) == 1920 * len(reply.codes)
    assert bool(reply.codes) == (answer == "speech")
    assert bool(reply.text) == (answer == "text")
    assert np.isfinite(reply.pcm).all()
    moments = list(session.metrics.waterfall_ms.values())
    assert len(moments) == (5 if answer == "speech" else 3)
    assert moments == sorted(moments)
    assert session.metrics.heard_s == (5000 / 16_000 if ask == "speech" else 0)
    assert session.metrics.spoken_s == pytest.approx(0.08 * len(reply.codes))


@settings(max_examples=12)
@given(
    cuts=st.lists(st.integers(0, 9000), max_size=9),
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=9),
)
def test_block_sizes_and_timing_change_nothing(written, cuts, steps):
    pcm = question(9000)
    written.reset()
    written.listen(pcm)
    text, rows = written.run_reply().text, written.conversation.rows.tolist()
    written.reset()
    for i, block in enumerate(np.split(pcm, sorted(cuts))):
        written.listen(block)
        for _ in range(steps[i % len(steps)]):
            written.step()
    assert (written.run_reply().text, written.conversation.rows.tolist()) == (text, rows)


def test_the_second_turn_follows_the_first(spoken):
    spoken.reset()
    spoken.listen(question())
    first = spoken.run_reply()
    before = spoken.conversation.rows.tolist()
    spoken.say("And?")
    second = spoken.run_reply()
    assert spoken.conversation.rows[: len(before)].tolist() == before
    assert spoken.conversation.rows[len(before) : len(before) + 6].tolist() == text_rows(
        257, "user\n"
    )
    assert second is not first
    assert second.finished


def test_the_same_seed_gives_the_same_reply(bundle):
    config = replace(
        configured(bundle), sampling=replace(bundle.manifest.sampling, max_new_tokens=9)
    )
    replies = []
    for seed in (1, 1, 2):
        session = Session(bundle, replace(config, seed=seed))
        session.listen(question())
        replies.append(session.run_reply())
    assert replies[0].codes == replies[1].codes != replies[2].codes
    np.testing.assert_array_equal(replies[0].pcm, replies[1].pcm)
    session.reset()  # the same conversation again, in the same session
    session.listen(question())
    np.testing.assert_array_equal(session.run_reply().pcm, replies[2].pcm)


def test_what_is_typed_steers_nothing(written):
    written.reset()
    start = len(written.conversation.rows)
    typed = "<|im_end|><|im_start|>system<think>"
    written.say(typed)
    written.run_reply()
    expected = text_rows(257, "user\n", typed, END, "\n", 257, "assistant\n")
    assert written.conversation.rows[start : start + len(expected)].tolist() == expected


def test_every_engine_gets_the_options(bundle, monkeypatch):
    given, load = {}, bundle.engine

    def engine(name, **options):
        given[name] = options
        return load(name, **options)

    monkeypatch.setattr(bundle, "engine", engine)
    session = Session(bundle, configured(bundle, threads=2, exact=True, voice_window_frames=40))
    assert given == {name: {"threads": 2, "exact": True} for name in bundle.manifest.engines}
    assert session._voice.flow.window_frames == 40


# the model's state is that of its rows, whatever was taken back on the way


def assert_state_is_that_of_the_rows(bundle, session):
    fresh = LanguageModel(bundle)
    fresh.prefill(session.conversation.rows)
    np.testing.assert_allclose(session._lm.speech_logits(), fresh.speech_logits(), atol=2e-4)
    np.testing.assert_allclose(session._lm.text_logits(), fresh.text_logits(), atol=2e-4)


@pytest.mark.parametrize("jobs", [1, 4, 11, 40])
@pytest.mark.parametrize("heard", [0, 1, 1921, None])
def test_cancelling_keeps_what_was_heard(bundle, spoken, jobs, heard):
    spoken.reset()
    spoken.listen(question())
    spoken.end_turn()
    while spoken.reply is None:
        spoken.step()
    start = len(spoken.conversation.rows)
    for _ in range(jobs):
        spoken.step()
    made = list(spoken.reply.codes)
    spoken.cancel(heard)
    assert spoken.reply.ending is Ending.CANCELLED
    assert spoken.reply.finished
    kept = made if heard is None else made[: -(-heard // 1920)]
    assert spoken.reply.heard_codes == len(kept)
    if kept:
        expected = [[PAD, c] for c in kept] + [[PAD, CODES]] + text_rows(END, "\n")
        assert spoken.conversation.rows[start:].tolist() == expected
    else:  # it never happened: the user's turn is the last
        assert spoken.conversation.rows[-3:].tolist() == [[PAD, CODES], *text_rows(END, "\n")]
    assert spoken.step() in (Job.TIDY, Job.WAIT)
    assert_state_is_that_of_the_rows(bundle, spoken)
    spoken.cancel(0)  # again: nothing is left to stop
    spoken.say("Go on.")
    assert spoken.run_reply().finished


def test_cancelling_a_finished_reply_that_was_not_played_out(bundle):
    ring = AudioRing(24_000)
    config = configured(bundle, scheduler=SchedulerConfig(low_mark_ms=60_000))
    session = Session(bundle, config, playback=ring)
    session.listen(question())
    reply = session.run_reply()
    ring.read(np.empty(3000, np.float32))
    session.cancel()
    assert reply.heard_codes == 2
    assert len(ring) == 0
    assert session.conversation.rows[-5:].tolist() == [
        *([PAD, c] for c in reply.codes[:2]), [PAD, CODES], *text_rows(END, "\n")
    ]  # fmt: skip
    assert_state_is_that_of_the_rows(bundle, session)


def test_a_reply_played_to_its_end_cannot_be_cancelled(spoken):
    spoken.reset()
    spoken.listen(question())
    reply = spoken.run_reply()
    rows = spoken.conversation.rows.tolist()
    spoken.cancel()
    spoken.cancel(1920 * len(reply.codes))
    assert spoken.conversation.rows.tolist() == rows
    assert reply.ending is not Ending.CANCELLED


def test_speaking_over_a_reply_cancels_it(spoken):
    spoken.reset()
    spoken.listen(question())
    spoken.end_turn()
    while spoken.reply is None or len(spoken.reply.codes) < 3:
        spoken.step()
    reply = spoken.reply
    spoken.listen(question(2000, seed=5))
    assert reply.ending is Ending.CANCELLED
    assert spoken.run_reply() is not reply


def test_cancelling_a_written_reply_keeps_all_of_it(bundle, written):
    written.reset()
    written.say("Hi")
    while not (written.reply and written.reply.text):
        written.step()
    rows = written.conversation.rows.tolist()
    written.cancel()
    assert written.conversation.rows.tolist() == rows + text_rows(END, "\n")
    assert_state_is_that_of_the_rows(bundle, written)


@pytest.mark.parametrize("ended", [False, True])
def test_cancelling_an_open_turn_drops_it(bundle, written, ended):
    written.reset()
    rows = written.conversation.rows.tolist()
    written.listen(question())
    written.step()
    assert written.length > len(rows)
    assert written.conversation.rows.tolist() == rows  # half a turn is not saved
    if ended:
        written.end_turn()
    written.cancel()
    assert written.conversation.rows.tolist() == rows
    assert written.step() in (Job.TIDY, Job.WAIT)
    assert_state_is_that_of_the_rows(bundle, written)


# preparing a reply before being sure


@pytest.mark.parametrize("jobs", [0, 1, 2, 9, 60])
def test_a_prepared_reply_can_be_taken_back(bundle, jobs):
    ring = AudioRing(24_000)
    session = Session(bundle, configured(bundle), playback=ring)
    first, second = question(4000), question(3000, seed=8)
    session.listen(first)
    session.end_turn(commit=False)
    for _ in range(jobs):
        session.step()
    assert len(ring) == 0
    session.listen(second)
    assert session.reply is None
    session.end_turn()
    codes = run_playing(session, ring)[0].codes
    straight = Session(bundle, configured(bundle))
    straight.listen(np.concatenate([first, second]))
    assert straight.run_reply().codes == codes
    assert straight.conversation.rows.tolist() == session.conversation.rows.tolist()
    assert_state_is_that_of_the_rows(bundle, session)


def run_playing(session, ring):
    """Play in real time as counted in jobs; returns the reply and what was played."""
    out, heard = np.empty(480, np.float32), []
    waits = 0
    for _ in range(3000):
        waits += session.step() is Job.WAIT
        heard.append(out[: ring.read(out)].copy())
        if session.reply and session.reply.finished and not len(ring):
            return session.reply, np.concatenate(heard), waits
    raise AssertionError("the reply does not end")


def test_a_committed_reply_is_played(bundle):
    ring = AudioRing(9600)  # less than the reply: it has to be delivered in parts
    session = Session(bundle, configured(bundle, tokens=30), playback=ring)
    session.listen(question())
    session.end_turn(commit=False)
    while session.step() is not Job.WAIT:
        pass
    reply = session.reply
    assert 0.4 < sum(map(len, reply.chunks)) / 24_000 < 1.3  # the low mark, then it waited
    assert "first_sample" not in session.metrics.moments
    session.end_turn()  # another way to say commit()
    assert "first_sample" in session.metrics.moments
    _, heard, waits = run_playing(session, ring)
    np.testing.assert_array_equal(heard, reply.pcm)
    assert waits > 0
    assert ring.position == 1920 * len(reply.codes)
    assert list(session.metrics.waterfall_ms) == list(WATERFALL[1:])


def test_running_a_prepared_reply_commits_it(bundle):
    ring = AudioRing(48_000)
    config = configured(bundle, scheduler=SchedulerConfig(low_mark_ms=60_000))
    session = Session(bundle, config, playback=ring)
    session.listen(question())
    session.end_turn(commit=False)
    while session.reply is None:
        session.step()
    reply = session.run_reply()
    assert len(ring) == len(reply.pcm) > 0


def prepared(session, jobs):
    """What has become of a reply `jobs` jobs after the first pause of a question."""
    session.reset()
    session.listen(question())
    session.end_turn(commit=False)
    for _ in range(jobs):
        session.step()
    return session.reply


@pytest.mark.parametrize("jobs", [0, 60])
def test_a_second_pause_changes_nothing(spoken, jobs):
    reply, state = prepared(spoken, jobs), spoken.state
    spoken.end_turn(commit=False)
    assert (spoken.reply, spoken.state) == (reply, state)
    spoken.end_turn()
    assert spoken.run_reply() is (reply or spoken.reply)
    assert spoken.reply.ending is not Ending.CANCELLED


def test_only_a_turn_being_given_can_be_paused(written):
    written.reset()
    written.end_turn(commit=False)
    assert written.step() in (Job.TIDY, Job.WAIT)
    written.say("Hello")
    written.end_turn(commit=False)
    with pytest.raises(AntiphonError, match="has ended"):
        written.listen(question())
    while not (written.reply and written.reply.text):
        written.step()
    reply, rows = written.reply, written.conversation.rows.tolist()
    written.end_turn(commit=False)
    written.listen(question())  # a barge-in
    assert reply.ending is Ending.CANCELLED
    assert written.conversation.rows[: len(rows)].tolist() == rows
    assert written.run_reply().finished


@pytest.mark.parametrize("jobs", [9, 60])
def test_a_reply_taken_back_is_over(spoken, jobs):
    reply = prepared(spoken, jobs)
    spoken.listen(question())
    assert (reply.ending, reply.finished, reply.heard_codes) == (Ending.CANCELLED, True, 0)


@pytest.mark.parametrize("answer", ["speech", "text"])
@pytest.mark.parametrize("jobs", [9, 60])
def test_a_prepared_reply_that_is_cancelled_never_happened(bundle, spoken, written, answer, jobs):
    session = spoken if answer == "speech" else written
    reply = prepared(session, jobs)
    assert reply.codes or reply.text
    session.cancel()
    session.step()
    assert (reply.ending, reply.finished, reply.heard_codes) == (Ending.CANCELLED, True, 0)
    assert "first_sample" not in reply.metrics.moments
    assert session.conversation.rows[-3:].tolist() == [[PAD, CODES], *text_rows(END, "\n")]
    assert_state_is_that_of_the_rows(bundle, session)


def test_the_reply_is_that_to_the_last_turn(written):
    written.reset()
    written.say("a")
    written.run_reply()
    written.listen(question())
    written.cancel()
    with pytest.raises(AntiphonError, match="nothing was said"):
        written.run_reply()


# engines that fail


def failing(calls):
    """An engine's `run` that fails at one of its calls."""

    def wrap(run):
        left = iter(range(calls))

        def fail_once(*arguments):
            if next(left, None) is None and not failed:
                failed.append(True)
                raise BundleError("out of order")
            return run(*arguments)

        failed = []
        return fail_once

    return wrap


@pytest.mark.parametrize(
    ("stage", "calls"), [("encoder", 0), ("encoder", 1), ("trunk", 0), ("trunk", 1)]
)
def test_an_engine_that_fails_at_the_question_costs_the_turn(
    bundle, written, monkeypatch, stage, calls
):
    written.reset()
    rows = written.conversation.rows.tolist()
    engine = bundle.engine(stage, threads=1, exact=False)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", failing(calls)(engine.run))
        written.listen(question(50_000))
        with pytest.raises(BundleError, match="out of order"):
            written.run_reply()
    assert written.conversation.rows.tolist() == rows
    with pytest.raises(AntiphonError, match="nothing was said"):
        written.run_reply()
    written.listen(question())
    assert written.run_reply().finished
    assert written.conversation.rows[len(rows) : len(rows) + 6].tolist() == text_rows(257, "user\n")
    assert_state_is_that_of_the_rows(bundle, written)


@pytest.mark.parametrize("answer", ["speech", "text"])
@pytest.mark.parametrize("then", ["go on", "cancel"])
def test_an_engine_that_fails_at_the_answer(bundle, spoken, written, monkeypatch, answer, then):
    session = spoken if answer == "speech" else written
    session.reset()
    session.say("a")
    whole = session.run_reply()
    session.reset()
    session.say("a")
    engine = bundle.engine("trunk", threads=1, exact=False)
    with monkeypatch.context() as patch:
        patch.setattr(engine, "run", failing(4)(engine.run))
        with pytest.raises(BundleError, match="out of order"):
            session.run_reply()
    if then == "cancel":
        session.cancel()
        kept = len(session.reply.codes or session.reply.text)
        assert 0 < kept < len(whole.codes or whole.text)
    else:
        reply = session.run_reply()
        assert (reply.codes, reply.text) == (whole.codes, whole.text)
    assert_state_is_that_of_the_rows(bundle, session)


# limits


def test_old_exchanges_are_forgotten_whole(bundle):
    session = Session(bundle, configured(bundle, "text", capacity_rows=128, chunk_rows=8))
    for turn in range(6):
        session.say(f"question {turn}")
        assert session.run_reply().finished
        first = len(session._stages.system)
        assert session.conversation.rows[first : first + 6].tolist() == text_rows(257, "user\n")
        while session.step() is not Job.WAIT:
            pass
        assert session._lm.free >= session._spare_rows - 1  # tidied up before the next turn
    assert session.length > 200
    assert len(session.conversation.rows) <= 128
    assert session.conversation.turns[0] == first


def test_a_turn_that_does_not_fit_is_refused(bundle):
    session = Session(bundle, configured(bundle, "text", capacity_rows=128, chunk_rows=8))
    session.say("before")
    session.run_reply()
    for kind in ("speech", "text"):
        if kind == "text":
            session.say("x" * 200)
        else:
            session.listen(question(120 * 1280))
        with pytest.raises(CapacityError, match=r"needs \d+ rows and there is room for \d+"):
            session.run_reply()
    session.say("after")
    assert session.run_reply().finished


def test_a_reply_ends_where_the_memory_does(bundle):
    config = configured(bundle, capacity_rows=80, chunk_rows=4, tokens=400)
    session = Session(bundle, config)
    session.listen(question())
    reply = session.run_reply()
    if reply.ending is Ending.TRUNCATED:  # the tiny model may have had enough before
        assert session._lm.free < 5
    assert session.conversation.rows[-3:].tolist() == [[PAD, CODES], *text_rows(END, "\n")]


def test_a_reply_is_cut_at_its_row_budget(written, monkeypatch):
    written.reset()
    script(monkeypatch, text=_bytes("abcdefghijklmnop"))
    written.say("a")
    reply = written.run_reply()
    assert (reply.text, reply.ending) == ("abcdefghijkl", Ending.TRUNCATED)
    assert written.conversation.rows[-14:].tolist() == text_rows("abcdefghijkl", END, "\n")


def test_speech_is_cut_at_its_row_budget(spoken, monkeypatch):
    spoken.reset()
    script(monkeypatch, speech=range(20))
    spoken.say("a")
    reply = spoken.run_reply()
    assert (reply.codes, reply.ending) == (list(range(12)), Ending.TRUNCATED)
    assert len(reply.pcm) == 12 * 1920
    expected = [[PAD, 11], [PAD, CODES], *text_rows(END, "\n")]
    assert spoken.conversation.rows[-4:].tolist() == expected


@pytest.mark.parametrize("samples", [0, 1, 1280])
def test_silence_and_next_to_nothing_are_legal(written, samples):
    written.reset()
    if samples:
        written.listen(np.zeros(samples, np.float32))
    written.end_turn()
    assert written.run_reply().finished
    assert (written.conversation.rows[:, 0] == PAD).sum() == 2  # one code and the end of speech


def test_bad_audio_is_refused(written):
    written.reset()
    for block in (np.full(5, np.nan), np.zeros((2, 5))):
        with pytest.raises(AudioError):
            written.listen(block)
    written.listen(np.zeros(0))
    assert written.run_reply().finished


def test_a_block_may_be_overwritten_after_listening(written):
    written.reset()
    block = question()
    written.listen(block)
    block[:] = 0
    text = written.run_reply().text
    written.reset()
    written.listen(question())
    assert written.run_reply().text == text


def test_calls_in_the_wrong_order(written):
    written.reset()
    with pytest.raises(AntiphonError, match="nothing was said"):
        written.run_reply()
    written.listen(question())
    with pytest.raises(AntiphonError, match="another turn is open"):
        written.say("no")
    written.end_turn()
    with pytest.raises(AntiphonError, match="has ended"):
        written.listen(question())


@pytest.mark.parametrize("wrong", [{"reply": "song"}, {"threads": 0}, {"seed": -1}])
def test_config_checks_itself(wrong):
    with pytest.raises(ConfigError):
        SessionConfig(**wrong)


# what the model may do


def script(monkeypatch, speech=(), text=()):
    """Make the model draw these ids."""
    speech, text = iter(speech), iter(text)
    monkeypatch.setattr(Sampler, "speech_row", lambda *_: (PAD, next(speech)))
    monkeypatch.setattr(Sampler, "text_row", lambda *_: (next(text), AUDIO_PAD))


def test_a_reply_may_be_empty(spoken, monkeypatch):
    spoken.reset()
    script(monkeypatch, speech=[CODES])
    spoken.say("a")
    reply = spoken.run_reply()
    assert (reply.codes, len(reply.pcm), reply.ending) == ([], 0, Ending.COMPLETE)
    assert spoken.conversation.rows[-4:].tolist() == [
        [SOSP, AUDIO_PAD],
        [PAD, CODES],
        *text_rows(END, "\n"),
    ]
    monkeypatch.undo()
    spoken.say("b")
    assert spoken.run_reply().codes


def test_a_written_reply_may_end_at_once(written, monkeypatch):
    written.reset()
    script(monkeypatch, text=[END])
    written.say("a")
    reply = written.run_reply()
    assert (reply.text, reply.ending) == ("", Ending.COMPLETE)
    assert written.conversation.rows[-2:].tolist() == text_rows(END, "\n")


def test_a_written_reply_may_turn_to_speech(bundle, written, monkeypatch):
    """Contract C.1: the mode follows the rows, whatever was asked for."""
    written.reset()
    script(monkeypatch, speech=[7, 9, CODES], text=[*_bytes("hi"), SOSP, *_bytes("!"), END])
    written.say("a")
    reply = written.run_reply()
    assert (reply.text, reply.codes, reply.ending) == ("hi!", [7, 9], Ending.COMPLETE)
    assert len(reply.pcm) == 0
    expected = [*text_rows("hi", SOSP), [PAD, 7], [PAD, 9], [PAD, CODES]]
    expected += text_rows("!", END, "\n")
    assert written.conversation.rows[-len(expected) :].tolist() == expected


def test_half_a_character_is_held_back(written, monkeypatch):
    written.reset()
    ids = [_ALPHABET.index(c) for c in "Ã©"]  # the two bytes of é
    script(monkeypatch, text=[*ids, ids[0], END])
    written.say("a")
    seen = []
    while not (written.reply and written.reply.finished):
        written.step()
        seen.append(written.reply.text if written.reply else "")
    assert seen[-4:] == ["", "é", "é", "é�"]


def test_idle_time_pays_the_debts(spoken):
    spoken.reset()
    spoken.listen(question())
    spoken.run_reply()
    assert spoken._lm.owed > 16  # the text branch has slept
    while spoken.step() is not Job.WAIT:
        pass
    assert spoken._lm.owed < 16
    assert spoken.metrics.counts["tidy"] > 0


def test_no_tidying_job_is_long(bundle, monkeypatch):
    session = Session(bundle, configured(bundle, capacity_rows=128, chunk_rows=8))
    jobs, run = [], LanguageModel._pay

    def pay(model, branch, until):
        jobs[-1] += max(0, until - branch.ring.length)
        run(model, branch, until)

    session.listen(question(60 * 1280))
    session.run_reply()
    assert session._lm.owed > 40
    monkeypatch.setattr(LanguageModel, "_pay", pay)
    free, jobs = session._lm.free, [0]
    while session.step() is not Job.WAIT:
        jobs.append(0)
    assert max(jobs) <= 8
    assert session._lm.free >= min(free, session._spare_rows)


def test_a_cancelled_reply_makes_room_too(bundle):
    session = Session(bundle, configured(bundle, "text", capacity_rows=128, chunk_rows=8))
    session.say("a")
    session.run_reply()
    while session.step() is not Job.WAIT:
        pass
    session.say("x" * 30)
    while not (session.reply and session.reply.text):
        session.step()
    assert session._lm.free < session._spare_rows
    session.cancel()
    while session.step() is not Job.WAIT:
        pass
    assert session._lm.free >= session._spare_rows


def test_metrics_add_up():
    now = iter(range(100))
    metrics = TurnMetrics(lambda: float(next(now)))
    with metrics.stage("think"):
        pass
    with metrics.stage("think"):
        pass
    assert (metrics.seconds, metrics.counts) == ({"think": 2.0}, {"think": 2})
    assert metrics.rtf is None
    assert metrics.waterfall_ms == {}
    metrics.heard_s, metrics.spoken_s = 1.0, 3.0
    for moment in ("question_end", "first_sample", "first_sample"):
        metrics.happened(moment)
    metrics.happened("first_mel", at=4.5)
    assert metrics.as_dict() == {
        "waterfall_ms": {"first_mel": 500.0, "first_sample": 1000.0},
        "seconds": {"think": 2.0},
        "counts": {"think": 2},
        "heard_s": 1.0,
        "spoken_s": 3.0,
        "rtf": 0.5,
    }
