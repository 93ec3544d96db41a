"""Rows of two models compared, and which rows of a dialogue count."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from antiphon.export.proof.drawn import drawn_rows
from antiphon.export.proof.heads import compare_row, interval, log_probabilities
from antiphon.runtime.manifest import SpecialTokens

TOKENS = SpecialTokens(
    endoftext=9, im_start=10, im_end=11, sosp=12, modality_pad=13, eosp=8, audio_pad=5
)
SPEECH_IDS, TEXT_IDS = 12, 16  # audio ids 9 … 11 cannot be drawn
OPENING = [10, 1, 2]


def logits(probabilities: dict[int, float], size: int) -> np.ndarray:
    row = np.full(size, -np.inf)
    for token, p in probabilities.items():
        row[token] = np.log(p)
    return np.where(np.isfinite(row), row, -60.0) + 3.0  # a common offset changes nothing


def test_kl_is_that_of_the_formula():
    a = logits({0: 0.5, 1: 0.25, 8: 0.25}, SPEECH_IDS)
    b = logits({0: 0.25, 1: 0.25, 8: 0.5}, SPEECH_IDS)
    row = compare_row(a, b, "speech", TOKENS)
    assert row.kl == pytest.approx(0.25 * np.log(2))
    assert (row.end, row.end_measured) == pytest.approx((0.25, 0.5))
    assert not row.same


@pytest.mark.parametrize(("head", "illegal"), [("speech", [9, 10, 11]), ("text", [13])])
def test_ids_that_cannot_be_drawn_do_not_count(head, illegal):
    size = SPEECH_IDS if head == "speech" else TEXT_IDS
    a, b = np.zeros(size), np.zeros(size)
    b[illegal] = 50
    row = compare_row(a, b, head, TOKENS)
    assert (row.kl, row.same) == (0, True)
    assert np.isneginf(log_probabilities(b, head, TOKENS)[illegal]).all()


def test_a_written_reply_ends_with_either_stop():
    row = logits({9: 0.125, 11: 0.25, 0: 0.625}, TEXT_IDS)
    assert compare_row(row, row, "text", TOKENS).end == pytest.approx(0.375)


rows = arrays(np.float32, SPEECH_IDS, elements=st.floats(-80, 80, width=32))


@given(rows, rows, st.floats(-50, 50))
def test_kl_is_not_negative_and_knows_no_offset(a, b, offset):
    there = compare_row(a, b, "speech", TOKENS)
    assert there.kl >= 0
    assert compare_row(a, a, "speech", TOKENS).kl == 0
    shifted = compare_row(a, b.astype(float) + offset, "speech", TOKENS)
    assert shifted.kl == pytest.approx(there.kl, rel=1e-6, abs=1e-9)


def test_the_interval_is_of_dialogues_not_of_rows():
    alike, apart = [[0.0, 1.0]] * 50, [[0.0, 0.0]] * 25 + [[1.0, 1.0]] * 25
    narrow, wide = interval(alike), interval(apart)
    assert narrow.mean == wide.mean == 0.5
    assert narrow.low == narrow.high == 0.5
    assert 0.3 < wide.low < 0.42 < 0.58 < wide.high < 0.7
    assert interval([[], []]) is None
    assert interval([[], [1.0], [0.0, 0.0]]).mean == pytest.approx(1 / 3)


def spoken(*codes: int) -> list[tuple[int, int]]:
    return [(13, code) for code in codes]


def written(*ids: int) -> list[tuple[int, int]]:
    return [(token, 5) for token in ids]


def test_only_what_the_model_drew_counts():
    grid = np.array(
        written(10, 3, 4, 11)  # somebody else's turn
        + written(12)
        + spoken(1, 2, 8)
        + written(11, *OPENING, 12)
        + spoken(3, 4, 8)  # 13 … 15
        + written(11, 2, *OPENING, 7, 6, 11)  # 21 … 23, the stop included
        + written(2, *OPENING, 12)
        + spoken(5)  # 29, and its end
        + spoken(8)
        + written(11, *OPENING, 12)
        + spoken(6)  # 36: cut off, the template goes on
        + written(11, *OPENING, 7)  # 41
        + spoken(2, 8)
        + written(6, *OPENING)  # a reply without an end
    )
    found = drawn_rows(grid, TOKENS, OPENING)
    assert found == {
        "speech": [13, 14, 15, 29, 30, 36, 42, 43],
        "text": [21, 22, 23, 41, 44, 45, 46, 47],
    }
