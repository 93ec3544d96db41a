"""The tape against the whole stream."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.tape import Tape


@given(
    capacity=st.integers(1, 50),
    blocks=st.lists(st.integers(0, 80), max_size=12),
    start=st.integers(0, 200),
    length=st.integers(0, 200),
)
def test_what_is_kept_is_what_was_recorded(capacity, blocks, start, length):
    stream = np.arange(sum(blocks), dtype=np.float32)
    tape = Tape(capacity)
    for block in np.split(stream, np.cumsum(blocks)[:-1]) if blocks else []:
        tape.push(block)
    assert (tape.end, tape.start) == (len(stream), max(0, len(stream) - capacity))
    stop = min(start + length, tape.end)
    kept = stream[max(start, tape.start) : stop]
    np.testing.assert_array_equal(tape.read(start, stop), kept)
