import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from antiphon.export.analysis.alignment import best_path, cosines, path_means
from antiphon.export.analysis.recording import ratio


def every_path(rows, columns):
    """All ways from the first pair to the last, each step on in one or in both."""
    if (rows, columns) == (1, 1):
        return [[(0, 0)]]
    before = [(rows - 1, columns - 1), (rows - 1, columns), (rows, columns - 1)]
    return [
        [*path, (rows - 1, columns - 1)]
        for r, c in before
        if r > 0 and c > 0
        for path in every_path(r, c)
    ]


@settings(max_examples=60)
@given(rows=st.integers(1, 4), columns=st.integers(1, 4), seed=st.integers(0, 99))
def test_the_path_is_the_cheapest_of_all(rows, columns, seed):
    similarity = np.random.default_rng(seed).uniform(-1, 1, (rows, columns)).astype(np.float32)
    costs = [sum(1 - similarity[cell] for cell in path) for path in every_path(rows, columns)]
    path = best_path(similarity)
    assert sum(1 - similarity[i, j] for i, j in path) == pytest.approx(min(costs), abs=1e-5)
    assert [tuple(cell) for cell in path] in every_path(rows, columns)


@settings(max_examples=60)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    seed=st.integers(0, 99),
)
def test_the_mean_is_that_of_the_path_whatever_lies_past_the_ends(lengths, seed):
    rng = np.random.default_rng(seed)
    spoken, written = np.array(lengths).T
    similarity = np.full((len(lengths), spoken.max(), written.max()), np.nan, np.float32)
    expected = []
    for pair, (s, t) in enumerate(lengths):
        similarity[pair, :s, :t] = rng.uniform(-1, 1, (s, t))
        path = best_path(similarity[pair, :s, :t])
        expected.append(similarity[pair][tuple(path.T)].mean())
    found = path_means(similarity, spoken, written)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_equal_sequences_meet_on_the_diagonal():
    rows = np.random.default_rng(0).standard_normal((6, 16)).astype(np.float32)
    assert best_path(cosines(rows, rows)).tolist() == [[i, i] for i in range(6)]


def test_a_slower_sequence_stays_with_the_same_row():
    rows = np.random.default_rng(0).standard_normal((3, 16)).astype(np.float32)
    slow = cosines(np.repeat(rows, 2, axis=0), rows)
    assert best_path(slow).tolist() == [[0, 0], [1, 0], [2, 1], [3, 1], [4, 2], [5, 2]]
    assert path_means(slow[None], np.array([6]), np.array([3])) == pytest.approx(1)


def test_length_does_not_matter_to_a_cosine_and_zeros_are_like_nothing():
    a, b = np.array([[3, 4], [0, 0]], np.float32), np.array([[30, 40], [-4, 3]], np.float32)
    np.testing.assert_allclose(cosines(a, b), [[1, 0], [0, 0]], atol=1e-6)


def test_a_ratio_weighs_items_by_their_size():
    found = ratio([1, 0, 30], [10, 10, 40])
    assert found.value == pytest.approx(31 / 60)
    assert 0 <= found.low < found.value < found.high <= 0.75
    assert ratio([2, 2, 2]) == ratio([2, 2, 2, 2])  # nothing varies: the interval is a point
