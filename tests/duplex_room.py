"""Rooms for the tests of the duplex session: every job takes as long, on any machine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from spoken import silence

from antiphon.runtime.duplex import DuplexSession
from antiphon.runtime.duplex_config import DuplexConfig
from antiphon.runtime.lm import LanguageModel
from antiphon.runtime.session_config import SessionConfig
from benchmarks.room import Room

END_OF_SPEECH = 48  # of the tiny model


def configured(bundle, *, tokens=25, reply="speech", session=None, **changes):
    """Greedy replies of `tokens` rows: a row takes 80 ms to hear."""
    least = {"min_new_tokens": tokens, "max_new_tokens": tokens, "do_sample": False}
    sampling = replace(bundle.manifest.sampling, **least)
    config = SessionConfig(reply=reply, sampling=sampling, **(session or {}))
    return DuplexConfig(session=config, **changes)


def furnished(bundle, *, job_s=0.001, **changes):
    """A room in which every job takes as long, so that nothing depends on the machine."""
    talk = DuplexSession(bundle, configured(bundle, **changes))
    room = Room(talk, cost=lambda job: job_s if job else 0.0)
    room.speak(silence(400))
    return room


def kinds(room):
    return [noted.event.kind for noted in room.noted]


def event(room, kind):
    (found,) = [noted.event for noted in room.noted if noted.event.kind is kind]
    return found


def turns(session):
    """How many times the user has begun and the assistant has ended, by the rows."""
    return (session.conversation.rows[:, 1] == END_OF_SPEECH).sum()  # ends of speech


def assert_state_is_that_of_the_rows(bundle, session):
    fresh = LanguageModel(bundle)
    fresh.prefill(session.conversation.rows)
    np.testing.assert_allclose(session._lm.speech_logits(), fresh.speech_logits(), atol=2e-4)
