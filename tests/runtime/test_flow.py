"""The flow decoder: streaming equals the reference's whole decode, for any way of feeding it."""

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_voice
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.export import quirks
from antiphon.runtime import flow
from antiphon.runtime.errors import CapacityError, ConfigError
from antiphon.runtime.flow import FlowDecoder, step_times

LONGEST, STEPS = 24, tiny_voice.FLOW.steps
CODES = np.random.default_rng(7).integers(0, 40, 60)
PROMPTS = (0, 5, 10, 13)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return tiny_voice.bundle(tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def decoders(bundle):
    return {prompt: FlowDecoder(bundle, str(prompt)) for prompt in PROMPTS}


@cache
def reference(prompt, count, *, final=True):
    """The streaming decode of prompt and reply in one piece: mel [M, 4N]."""
    v = tiny_voice.voice(prompt)
    parts = (v.prompt_codes, v.prompt_mel, v.embedding)
    parts = tuple(torch.tensor(part) for part in parts)
    codes = torch.tensor(CODES[:count])
    return tiny_voice.flow().generate(codes, parts, chunk=5, final=final).numpy()


def decode(decoder, codes, cuts=()):
    return np.concatenate(
        [*map(decoder.push, np.split(codes, sorted(cuts))), decoder.finish()], axis=1
    )


@settings(max_examples=30)
@given(
    prompt=st.sampled_from(PROMPTS),
    count=st.integers(1, LONGEST),
    cuts=st.lists(st.integers(0, LONGEST), max_size=6),
)
def test_streaming_equals_offline(decoders, prompt, count, cuts):
    mel = decode(decoders[prompt], CODES[:count], [c % (count + 1) for c in cuts])
    assert mel.shape == (80, 4 * count)
    np.testing.assert_allclose(mel, reference(prompt, count), atol=1e-4)


@pytest.mark.parametrize("prompt", PROMPTS)
def test_the_caches_may_grow(bundle, prompt):
    """60 codes are more than the first allocation holds."""
    decoder = FlowDecoder(bundle, str(prompt))
    before = decoder.nbytes
    mel = decode(decoder, np.concatenate((CODES, CODES))[:80])
    assert mel.shape == (80, 320)
    assert decoder.nbytes > before
    np.testing.assert_allclose(decode(decoder, CODES), reference(prompt, len(CODES)), atol=1e-4)


def test_frames_come_as_soon_as_the_look_ahead_is_there(decoders):
    decoder = decoders[10]
    decoder.reset()
    counts = [decoder.push(CODES[i : i + 1]).shape[1] for i in range(13)]
    assert counts == [0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 20]
    mel = decoder.finish()
    np.testing.assert_allclose(mel, reference(10, 13)[:, 40:], atol=1e-4)


def test_no_frame_depends_on_codes_that_came_later(decoders):
    decoder = decoders[5]
    decoder.reset()
    early = decoder.push(CODES[:18])
    decoder.reset()
    assert early.shape[1] == 60
    np.testing.assert_allclose(early, reference(5, 23)[:, :60], atol=1e-4)
    np.testing.assert_allclose(early, reference(5, 18, final=False), atol=1e-4)


def test_one_engine_call_per_step(decoders):
    decoder = decoders[10]
    decoder.reset()
    decoder.feed(CODES[:2])
    assert not decoder.ready
    decoder.feed(CODES[2:3])  # the prompt's last chunk looks three codes ahead
    calls = 0
    while decoder.ready:
        assert decoder.step().shape == (80, 0)
        calls += 1
    assert calls == 1 + STEPS
    decoder.feed(CODES[3:7])
    assert not decoder.ready
    decoder.feed(CODES[7:8])
    mel = [decoder.step() for _ in range(1 + STEPS)]
    assert not decoder.ready
    np.testing.assert_allclose(mel[-1], reference(10, 8)[:, :20], atol=1e-4)


@pytest.mark.parametrize("calls", [0, 1, 3, STEPS + 1, STEPS + 2, 13])
def test_a_dropped_reply_leaves_no_trace(decoders, calls):
    decoder = decoders[10]
    decoder.reset()
    decoder.feed(CODES[20:50])
    for _ in range(calls):
        decoder.step()
    decoder.reset()
    np.testing.assert_allclose(decode(decoder, CODES[:9]), reference(10, 9), atol=1e-4)


def test_a_window_is_exact_until_it_is_full(bundle):
    exact, bounded = FlowDecoder(bundle, "10"), FlowDecoder(bundle, "10", window_frames=40)
    full, near = decode(exact, CODES), decode(bounded, CODES)
    assert near.shape == full.shape
    # a chunk sees the prompt, the window and itself: the third one still sees everything
    np.testing.assert_allclose(near[:, :60], full[:, :60], atol=1e-4)
    assert 1e-3 < np.abs(near[:, 80:] - full[:, 80:]).max() < 1
    np.testing.assert_allclose(decode(bounded, CODES[:15]), reference(10, 15), atol=1e-4)
    assert bounded.nbytes < exact.nbytes


def test_a_wide_window_changes_nothing(bundle):
    decoder = FlowDecoder(bundle, "5", window_frames=240)
    np.testing.assert_allclose(decode(decoder, CODES), reference(5, len(CODES)), atol=1e-4)


def test_the_state_is_bounded_where_all_of_it_would_be_too_much(bundle, monkeypatch):
    decoder = FlowDecoder(bundle, "10")
    assert decoder.window_frames is None
    frame = decoder._steps[0].layout.row_bytes * STEPS
    assert frame == sum(ring.nbytes // ring.allocated for ring in decoder._steps)
    for frames, window in ((5, 20), (359, 300), (360, None), (110, 60)):
        monkeypatch.setattr(flow, "REPLY_STATE_BYTES", frames * frame)
        bounded = FlowDecoder(bundle, "10")
        assert bounded.window_frames == window
    decode(bounded, np.concatenate((CODES, CODES))[:80])
    assert sum(ring.nbytes for ring in bounded._steps) <= (40 + 110) * frame
    near = decode(bounded, CODES[:20])  # the prompt, the window and the chunk itself
    np.testing.assert_allclose(near, reference(10, 20), atol=1e-4)


def test_the_window_of_the_published_size(bundle, monkeypatch):
    """Keys and values of 512 in 56 blocks and two guidance branches, ten steps (contract E.10)."""
    decoder, layout = FlowDecoder(bundle, "10"), SimpleNamespace(row_bytes=56 * 2 * 512 * 2 * 4)
    monkeypatch.setattr(flow.CacheLayout, "of", lambda engine: layout)
    monkeypatch.setattr(decoder, "sizes", replace(decoder.sizes, steps=10))
    decoder._most_frames = 15_000
    assert decoder._affordable() == 180
    for text in (flow.__doc__, quirks.__doc__):  # what is said there of it
        words = " ".join(text.split())
        assert "180" in words
        assert f"{180 + decoder.chunk_frames} frames" in words


def test_what_cannot_be_said_is_refused(bundle, decoders):
    decoder = decoders[5]
    decoder.reset()
    with pytest.raises(ConfigError, match="without codes"):
        decoder.finish()
    for wrong in (-1, 40, 16384):
        with pytest.raises(ConfigError, match=f"code {wrong} is outside"):
            decoder.push(np.array([1, wrong]))
    # nothing of the refused codes was kept
    np.testing.assert_allclose(decode(decoder, CODES[:4]), reference(5, 4), atol=1e-4)
    with pytest.raises(ConfigError, match="multiple of a chunk"):
        FlowDecoder(bundle, "5", window_frames=30)


def test_a_reply_that_is_too_long_is_refused(bundle):
    short = SimpleNamespace(**vars(bundle) | {"noise": bundle.noise[:, :89]})
    decoder = FlowDecoder(short, "10")
    assert decoder.max_codes == 10  # 80 frames in whole chunks, 40 of them the prompt's
    with pytest.raises(CapacityError, match="more than 10 codes"):
        decoder.push(CODES[:11])
    np.testing.assert_allclose(decode(decoder, CODES[:10]), reference(10, 10), atol=1e-4)
    with pytest.raises(CapacityError, match="shorter prompt"):
        FlowDecoder(SimpleNamespace(**vars(bundle) | {"noise": bundle.noise[:, :40]}), "10")


def test_the_hundredth_chunk_costs_what_the_second_does(bundle, monkeypatch):
    """Same engine calls with the same rows, whatever came before."""
    decoder = FlowDecoder(bundle, "5")
    calls = []

    def spy(run):
        def record(feeds, caches):
            calls.append({name: v.shape for name, v in feeds.items() if "mask" not in name})
            return run(feeds, caches)

        return record

    for engine in (decoder._encoder, decoder._step):
        monkeypatch.setattr(engine, "run", spy(engine.run))
    costs = []
    for start in range(0, 60, 5):
        before = len(calls)
        decoder.push(CODES[start : start + 5])
        costs.append(calls[before:])
    assert all(cost == costs[2] for cost in costs[2:])


def test_times_are_the_contracts():
    expected = [0, 0.0123116, 0.0489435, 0.1089935, 0.1909830, 0.2928932, 0.4122148, 0.5460095]
    np.testing.assert_allclose(step_times(10), [*expected, 0.6909831, 0.8435655, 1], atol=1e-7)
