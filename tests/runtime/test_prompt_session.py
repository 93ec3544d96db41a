"""Every row of a conversation, where the model draws what the quirks are about (contract B, C)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tiny_session import AUDIO_PAD, CODES

from antiphon.runtime.encoder import SpeechEncoder
from antiphon.runtime.history import AUDIO, TEXT
from antiphon.runtime.reply import Ending
from antiphon.runtime.sampling import Sampler
from antiphon.runtime.session import Session
from antiphon.runtime.session_config import SessionConfig
from antiphon.runtime.text import TextTokenizer

ENDOFTEXT, START, END, SOSP, PAD = 256, 257, 258, 259, 260
QUESTION = (0.1 * np.random.default_rng(3).standard_normal(5000)).astype(np.float32)
BUDGET = 6


def session(bundle, reply):
    sampling = replace(bundle.manifest.sampling, max_new_tokens=BUDGET)
    return Session(bundle, SessionConfig(reply=reply, sampling=sampling))


@pytest.fixture(scope="module")
def encode(random_bundle):
    return TextTokenizer(random_bundle.tokenizer_path).encode


@pytest.fixture
def draw(monkeypatch):
    """Make the model draw these ids, speech and text; returns what history it looked at."""
    seen = []

    def script(speech=(), text=()):
        speech, text = iter(speech), iter(text)

        def speech_row(self, logits, history, generated):
            seen.append([set(np.flatnonzero(history.seen(c))) for c in (TEXT, AUDIO)])
            return (PAD, next(speech))

        monkeypatch.setattr(Sampler, "speech_row", speech_row)
        monkeypatch.setattr(Sampler, "text_row", lambda *_: (next(text), AUDIO_PAD))
        return seen

    return script


def text(*ids):
    return [[i, AUDIO_PAD] for i in ids]


def speech(*codes):
    return [[PAD, code] for code in codes]


def test_a_spoken_conversation(random_bundle, encode, draw):
    """Ended by the model, then cut by the budget; heard with speech, then with text."""
    talk = session(random_bundle, "speech")
    # the pad is a legal code and ends nothing, wherever it stands (contract J.7)
    draw(speech=[AUDIO_PAD, 3, AUDIO_PAD, CODES, *range(BUDGET), 40, CODES])
    encoder = SpeechEncoder(random_bundle)
    heard = np.concatenate([encoder.push(QUESTION), encoder.finish()])
    talk.listen(QUESTION)
    first = talk.run_reply()
    talk.say("ok?")
    second = talk.run_reply()
    assert (first.codes, first.ending) == ([AUDIO_PAD, 3, AUDIO_PAD], Ending.COMPLETE)
    assert (second.codes, second.ending) == (list(range(BUDGET)), Ending.TRUNCATED)
    assert [len(reply.pcm) for reply in (first, second)] == [3 * 1920, BUDGET * 1920]
    close, assistant = text(END, *encode("\n")), text(START, *encode("assistant\n"), SOSP)
    user = text(START, *encode("user\n"))
    assert talk.conversation.rows.tolist() == [
        *text(START, *encode("system\nSpeak.")), *close,
        *user, *text(SOSP), *speech(*heard, CODES), *close,
        *assistant, *speech(AUDIO_PAD, 3, AUDIO_PAD, CODES), *close,
        *user, *text(*encode("ok?")), *close,
        *assistant, *speech(*range(BUDGET), CODES), *close,
    ]  # fmt: skip


@pytest.mark.parametrize("stop", [END, ENDOFTEXT])
def test_a_written_conversation(random_bundle, encode, draw, stop):
    """The stopping row stays, and the template is completed behind it."""
    talk = session(random_bundle, "text")
    ids = encode("hi!")
    draw(text=[*ids, stop, *encode("too long")])
    talk.say("ok?")
    first = talk.run_reply()
    talk.say("and?")
    second = talk.run_reply()
    assert (first.text, first.ending) == ("hi!", Ending.COMPLETE)
    assert (second.text, second.ending) == ("too lo", Ending.TRUNCATED)  # not one id fewer
    close, assistant = text(END, *encode("\n")), text(START, *encode("assistant\n"))
    user = text(START, *encode("user\n"))
    assert talk.conversation.rows.tolist() == [
        *text(START, *encode("system\nWrite.")), *close,
        *user, *text(*encode("ok?")), *close,
        *assistant, *text(*ids), *(close if stop == END else [*text(stop), *close]),
        *user, *text(*encode("and?")), *close,
        *assistant, *text(*encode("too lo")), *close,
    ]  # fmt: skip


def test_the_penalty_sees_the_whole_conversation(random_bundle, encode, draw):
    """Both channels, prompt and pads and the ends of earlier speech included (contract J.10)."""
    talk = session(random_bundle, "speech")
    seen = draw(speech=[3, CODES, 4, CODES])
    talk.say("a")
    talk.run_reply()
    talk.say("b")
    talk.run_reply()
    prompt = {START, END, *encode("system\nSpeak.user\naassistant\n"), SOSP}
    assert seen[0] == [prompt, {AUDIO_PAD}]
    assert seen[1] == [prompt | {PAD}, {AUDIO_PAD, 3}]
    assert seen[2] == [prompt | {PAD, *encode("b")}, {AUDIO_PAD, 3, CODES}]
    assert seen[3][AUDIO] == {AUDIO_PAD, 3, CODES, 4}
