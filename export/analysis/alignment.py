"""Dynamic time warping of similarities: which spoken row belongs to which written one.

A path runs from the first pair of rows to the last; each step moves on in one sequence or in both.
The best path has the least sum of 1 - similarity; of equal ones, the one that moves in both first.

         0 1 2 3  written
       0 x . . .
       1 x . . .
       2 . x x .
       3 . . . x
    spoken
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Path = NDArray[np.int64]


def cosines(a: Floats, b: Floats) -> Floats:
    """Rows a [S, H] and b [T, H] -> cosine of every pair [S, T]; a row of zeros is like none."""
    return unit(a) @ unit(b).T


def unit(rows: Floats) -> Floats:
    """Rows [S, H], each scaled to length 1; rows of zeros stay."""
    length = np.linalg.norm(rows, axis=-1, keepdims=True)
    return (rows / np.where(length == 0, 1, length)).astype(np.float32)


def path_means(similarity: Floats, spoken: NDArray[np.int64], written: NDArray[np.int64]) -> Floats:
    """Mean similarity along the best path of each of N pairs of sequences.

    similarity  [N, S, T]  rows past a pair's own lengths may hold anything
    spoken      [N]        lengths, from 1 to S
    written     [N]        lengths, from 1 to T
    returns     [N]
    """
    pairs, rows, columns = similarity.shape
    row = np.arange(rows)
    # of the last two diagonals, by row: the best path's sum of costs, and its number of pairs
    before = last = (np.full((pairs, rows), np.inf), np.zeros((pairs, rows)))
    means = np.zeros(pairs, np.float32)
    for diagonal in range(rows + columns - 1):
        column = diagonal - row
        cost = 1.0 - similarity[:, row, column.clip(0, columns - 1)].astype(np.float64)
        outside = (column < 0) | (column >= columns)
        current = _step(np.where(outside, np.inf, cost), before, last, first=diagonal == 0)
        done = np.flatnonzero(spoken + written - 2 == diagonal)
        total, count = (values[done, spoken[done] - 1] for values in current)
        means[done] = 1.0 - total / count
        before, last = last, current
    return means


Diagonal = tuple[NDArray[np.float64], NDArray[np.float64]]


def _step(cost: NDArray[np.float64], before: Diagonal, last: Diagonal, *, first: bool) -> Diagonal:
    """The best paths that end on a diagonal, from those that end on the two before it."""
    if first:  # nothing precedes the first pair
        return cost, np.ones_like(cost)
    totals = np.stack((_shift(before[0], np.inf), _shift(last[0], np.inf), last[0]))
    counts = np.stack((_shift(before[1], 0), _shift(last[1], 0), last[1]))
    best = totals.argmin(0)[None]
    total, count = (np.take_along_axis(values, best, 0)[0] for values in (totals, counts))
    return total + cost, count + 1


def _shift(values: NDArray[np.float64], fill: float) -> NDArray[np.float64]:
    """Values [N, S] of the row above."""
    return np.concatenate((np.full((len(values), 1), fill), values[:, :-1]), axis=1)


def best_path(similarity: Floats) -> Path:
    """The best path through one pair of sequences [S, T]: its pairs [P, 2], first to last."""
    rows, columns = similarity.shape
    total = np.full((rows + 1, columns + 1), np.inf)
    total[0, 0] = 0.0
    for i in range(rows):
        for j in range(columns):
            came = min(total[i, j], total[i, j + 1], total[i + 1, j])
            total[i + 1, j + 1] = came + 1.0 - similarity[i, j]
    path = [(rows - 1, columns - 1)]
    while path[-1] != (0, 0):
        i, j = path[-1]
        moves = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        path.append(min(moves, key=lambda cell: total[cell[0] + 1, cell[1] + 1]))
    return np.array(path[::-1], np.int64)
