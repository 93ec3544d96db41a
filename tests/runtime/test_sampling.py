"""Sampling against a slow reference, written one id at a time from contract C."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.errors import BundleError
from antiphon.runtime.history import AUDIO, TEXT, History
from antiphon.runtime.manifest import SamplingConfig, SpecialTokens
from antiphon.runtime.sampling import (
    Mode,
    Sampler,
    initial_mode,
    next_mode,
    nucleus,
)

TOKENS = SpecialTokens(
    endoftext=5, im_start=6, im_end=7, sosp=8, modality_pad=9, eosp=6, audio_pad=3
)
TEXT_VOCAB, AUDIO_VOCAB = 10, 9  # audio ids 7, 8 are never produced
ROWS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 8)), min_size=1, max_size=12)
# few distinct values, so that ties are common
LOGITS = st.lists(st.sampled_from([-3.0, -1.0, 0.0, 0.5, 1.0, 2.0]), min_size=10, max_size=10)


def history(rows: list[tuple[int, int]]) -> History:
    made = History(TEXT_VOCAB, AUDIO_VOCAB)
    made.extend(np.array(rows, np.int64).reshape(-1, 2))
    return made


def reference(
    scores: dict[int, float], config: SamplingConfig, past: list[int]
) -> dict[int, float]:
    """Probabilities of the ids in `scores`, in plain Python."""
    for i in scores:
        if i in past:
            p = config.repetition_penalty
            scores[i] = scores[i] * p if scores[i] < 0 else scores[i] / p
    if not config.do_sample:
        best = max(scores.values())
        return {min(i for i in scores if scores[i] == best): 1.0}
    scores = {i: s / config.temperature for i, s in scores.items()}
    last = sorted(scores.values(), reverse=True)[: config.top_k][-1]
    scores = {i: s for i, s in scores.items() if s >= last}
    total = sum(math.exp(s) for s in scores.values())
    kept: dict[int, float] = {}
    for i in sorted(scores, key=lambda i: (-scores[i], i)):
        if kept and sum(kept.values()) >= config.top_p:
            break
        kept[i] = math.exp(scores[i]) / total
    return {i: p / sum(kept.values()) for i, p in kept.items()}


class Drawn:
    """A generator whose next number is known."""

    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def probabilities(draw) -> dict[int, float]:
    """Exact odds of `draw(rng)`, found by halving [0, 1) until both ends agree."""
    odds: Counter[int] = Counter()

    def split(low: float, high: float, depth: int) -> None:
        first, last = draw(Drawn(low)), draw(Drawn(high))
        if first == last or depth == 0:
            odds[first] += high - low
        else:
            middle = (low + high) / 2
            split(low, middle, depth - 1)
            split(middle, high, depth - 1)

    split(0.0, 1.0 - 1e-12, 22)
    return dict(odds)


CONFIGS = st.builds(
    SamplingConfig,
    do_sample=st.booleans(),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_p=st.sampled_from([0.11, 0.53, 0.97, 1.0]),
    top_k=st.integers(1, 12),
    repetition_penalty=st.sampled_from([0.5, 1.0, 1.25, 2.0]),
    min_new_tokens=st.integers(0, 3),
)


def same(got: dict[int, float], expected: dict[int, float]) -> None:
    for i in got | expected:
        assert got.get(i, 0.0) == pytest.approx(expected.get(i, 0.0), abs=1e-4)


@given(logits=LOGITS, config=CONFIGS, rows=ROWS, generated=st.integers(1, 4))
def test_speech_rows(
    logits: list[float], config: SamplingConfig, rows: list[tuple[int, int]], generated: int
) -> None:
    values = np.array(logits[:AUDIO_VOCAB], "f4")
    allowed = {
        i: s for i, s in enumerate(logits[:7]) if i < 6 or generated >= config.min_new_tokens
    }
    expected = reference(allowed, config, [a for _, a in rows])

    def draw(rng: Drawn) -> int:
        text, audio = Sampler(config, TOKENS, rng).speech_row(values, history(rows), generated)
        assert text == TOKENS.modality_pad
        return audio

    same(probabilities(draw), expected)
    assert (values == logits[:AUDIO_VOCAB]).all(), "the logits are the caller's"


@given(logits=LOGITS, config=CONFIGS, rows=ROWS, generated=st.integers(1, 4))
def test_text_rows(
    logits: list[float], config: SamplingConfig, rows: list[tuple[int, int]], generated: int
) -> None:
    values = np.array([logits], "f4")
    # fewer than min_new_tokens rows before this one, which is number `generated`
    hidden = {9} | ({5, 7} if generated - 1 < config.min_new_tokens else set())
    allowed = {i: s for i, s in enumerate(logits) if i not in hidden}
    expected = reference(allowed, config, [t for t, _ in rows])

    def draw(rng: Drawn) -> int:
        text, audio = Sampler(config, TOKENS, rng).text_row(values, history(rows), generated)
        assert audio == TOKENS.audio_pad
        return text

    same(probabilities(draw), expected)


def test_ties_at_the_top_k_are_kept_and_listed_lowest_first() -> None:
    config = SamplingConfig(top_k=2, top_p=1.0, temperature=1.0)
    ids, weights = nucleus(np.array([1, 3, 1, 1, 0], "f4"), config)
    assert ids.tolist() == [1, 0, 2, 3]
    assert weights[1] == weights[3]


def test_the_nucleus_keeps_the_best() -> None:
    ids, _ = nucleus(np.array([0, 2, 1], "f4"), SamplingConfig(top_p=1e-9))
    assert ids.tolist() == [1]


@pytest.mark.parametrize("value", [0.0, 0.5, 1 - 2**-53])
def test_any_random_number_draws_an_allowed_id(value: float) -> None:
    rng = np.random.default_rng(3)
    config = SamplingConfig(temperature=1.0, top_k=500, top_p=1.0, repetition_penalty=1.0)
    logits = rng.standard_normal(1000).astype("f4")
    tokens = SpecialTokens(
        endoftext=0, im_start=1, im_end=2, sosp=3, modality_pad=4, eosp=900, audio_pad=1
    )
    row = Sampler(config, tokens, Drawn(value)).speech_row(logits, History(10, 1000), 1)
    assert row[1] in nucleus(logits[:901], config)[0]


def test_the_same_seed_speaks_the_same() -> None:
    logits = np.linspace(0, 1, AUDIO_VOCAB, dtype="f4")

    def speak() -> list[tuple[int, int]]:
        sampler = Sampler(SamplingConfig(), TOKENS, np.random.default_rng(5))
        return [sampler.speech_row(logits, history([]), i) for i in range(1, 9)]

    assert speak() == speak()


@given(rows=ROWS, cut=st.integers(0, 12), more=ROWS, gone=st.integers(0, 12), data=st.data())
def test_history_counts_rewinds_and_forgets(
    rows: list[tuple[int, int]],
    cut: int,
    more: list[tuple[int, int]],
    gone: int,
    data: st.DataObject,
) -> None:
    cut = min(cut, len(rows))
    made = history(rows)
    made.rewind(cut)
    made.extend(np.array(more))
    start = data.draw(st.integers(0, len(made)))
    made.forget(start, gone := min(gone, max(0, len(made) - start)))
    expected = rows[: len(rows) - cut] + more
    del expected[start : start + gone]
    assert [tuple(row) for row in made.rows] == expected
    assert len(made) == len(expected)
    for channel in (TEXT, AUDIO):
        assert set(np.flatnonzero(made.seen(channel))) == {row[channel] for row in expected}
    with pytest.raises(ValueError, match="read-only"):
        made.rows[0] = 0


def test_history_grows() -> None:
    made = history([(1, 2)] * 700)
    made.extend(np.full((600, 2), 4))
    assert len(made) == 1300
    assert made.rows[699:701].tolist() == [[1, 2], [4, 4]]


@pytest.mark.parametrize(
    ("last", "mode"),
    [
        ((8, 3), Mode.AUDIO),  # a spoken prompt: the first row drawn is speech
        ((1, 3), Mode.TEXT),
        ((9, 2), Mode.AUDIO),  # a prompt that ends inside speech
        ((9, 3), Mode.TEXT),  # the pad is a legal code too: the second test wins
        ((9, 6), Mode.TEXT),
        ((8, 6), Mode.TEXT),  # enters and leaves in the same check
    ],
)
def test_mode_after_a_prompt(last: tuple[int, int], mode: Mode) -> None:
    assert initial_mode(last, TOKENS) is mode


@pytest.mark.parametrize(
    ("before", "last", "after"),
    [
        (Mode.TEXT, (8, 3), Mode.AUDIO),
        (Mode.TEXT, (1, 6), Mode.TEXT),
        (Mode.AUDIO, (9, 3), Mode.AUDIO),  # a code like any other
        (Mode.AUDIO, (9, 6), Mode.TEXT),
        (Mode.TEXT, (9, 2), Mode.TEXT),
    ],
)
def test_mode_from_row_to_row(before: Mode, last: tuple[int, int], after: Mode) -> None:
    assert next_mode(before, last, TOKENS) is after


def test_only_text_ids_and_the_budget_stop() -> None:
    sampler = Sampler(SamplingConfig(max_new_tokens=9), TOKENS, np.random.default_rng())
    assert sampler.stops((5, 3), 1)
    assert sampler.stops((7, 3), 1)
    assert not sampler.stops((9, 6), 8)
    assert sampler.stops((9, 1), 9)


def test_forgotten_rows_count_no_more() -> None:
    made = history([(1, 1), (2, 2), (3, 3), (2, 4)])
    made.forget(1, 2)  # the first one is pinned
    assert set(np.flatnonzero(made.seen(TEXT))) == {1, 2}
    assert set(np.flatnonzero(made.seen(AUDIO))) == {1, 4}
    assert made.rows.tolist() == [[1, 1], [2, 4]]
    made.rewind(1)
    assert set(np.flatnonzero(made.seen(TEXT))) == {1}
    made.clear()
    assert not made.seen(TEXT).any()
    made.extend(np.array([(2, 2)]))
    assert made.rows.tolist() == [[2, 2]]


@pytest.mark.parametrize("sampling", [True, False])
@pytest.mark.parametrize("bad", [[np.nan] * 9, [0, np.nan, *[1.0] * 7], [-np.inf] * 9])
def test_scores_that_are_no_numbers(sampling: bool, bad: list[float]) -> None:
    sampler = Sampler(SamplingConfig(do_sample=sampling), TOKENS, np.random.default_rng(1))
    with pytest.raises(BundleError, match=r"best score is .*new conversation"):
        sampler.speech_row(np.array(bad, "f4"), history([]), 1)
