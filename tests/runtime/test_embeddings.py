"""A grid row selects one embedding row."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.embeddings import Embeddings, Table


@given(
    grid=st.lists(st.tuples(st.sampled_from([0, 5, 95]), st.integers(0, 47)), max_size=9),
    kind=st.sampled_from(["f4", "f2", "i1"]),
)
def test_rows_are_selected_never_summed(grid: list[tuple[int, int]], kind: str) -> None:
    rng = np.random.default_rng(1)
    tables = [(rng.standard_normal((n, 4)) * 9).astype(kind) for n in (96, 48)]
    scales = [rng.random(n).astype("f4") if kind == "i1" else None for n in (96, 48)]
    made = Embeddings(*map(Table, tables, scales), modality_pad=95)
    rows = made.rows(np.array(grid, np.int64).reshape(-1, 2))
    assert rows.dtype == np.float32
    assert rows.shape == (len(grid), 4)
    for row, (text, audio) in zip(rows, grid, strict=True):
        channel, i = (1, audio) if text == 95 else (0, text)
        scale = scales[channel]
        expected = tables[channel][i].astype("f4") * (1 if scale is None else scale[i])
        assert (row == expected).all()
