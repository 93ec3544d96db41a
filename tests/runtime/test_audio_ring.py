"""The ring is a queue of samples with a bounded length."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from antiphon.runtime.audio_ring import AudioRing
from antiphon.runtime.errors import ConfigError
from antiphon.runtime.outlet import Outlet

ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, 12)),
        st.tuples(st.just("read"), st.integers(0, 12)),
        st.tuples(st.just("flush"), st.just(0)),
    ),
    max_size=60,
)


@given(capacity=st.integers(1, 10), actions=ACTIONS)
def test_it_is_a_queue(capacity: int, actions: list[tuple[str, int]]) -> None:
    ring = AudioRing(capacity)
    queue: list[float] = []
    unskipped = 0  # flushed samples keep their room until the reader has skipped them
    position = 0
    clock = 0
    for action, count in actions:
        if action == "write":
            pcm = np.arange(clock, clock + count, dtype=np.float32)
            stored = ring.write(pcm)
            assert stored == min(count, capacity - len(queue) - unskipped)
            queue += pcm[:stored].tolist()
            clock += stored
        elif action == "read":
            out = np.full(count, -1.0, np.float32)
            taken = ring.read(out)
            expected, queue = queue[:count], queue[count:]
            assert taken == len(expected)
            assert out.tolist() == expected + [0.0] * (count - taken)
            position += taken + unskipped
            unskipped = 0
        else:
            assert ring.flush() == ring.written == clock
            unskipped += len(queue)
            queue = []
        assert (len(ring), ring.position) == (len(queue), position)


def test_two_threads_lose_nothing() -> None:
    ring = AudioRing(997)
    total = 8_000
    heard: list[np.ndarray] = []

    def play() -> None:
        out = np.empty(100, np.float32)
        while sum(map(len, heard)) < total:
            heard.append(out[: ring.read(out)].copy())

    reader = threading.Thread(target=play)
    reader.start()
    pcm = np.arange(total, dtype=np.float32)
    sent = 0
    while sent < total:
        sent += ring.write(pcm[sent : sent + 61])
    reader.join(timeout=10)
    np.testing.assert_array_equal(np.concatenate(heard), pcm)


class Interrupted(np.ndarray):
    """Samples whose first read is interrupted by whoever is asked to."""

    def __getitem__(self, key):
        if interruption := self.__dict__.pop("interruption", None):
            interruption()
        return super().__getitem__(key)


def test_what_is_flushed_in_the_middle_of_a_read_is_not_taken_for_what_follows() -> None:
    ring = AudioRing(16)
    ring.write(np.ones(10, "f4"))
    ring._buf = ring._buf.view(Interrupted)
    outlet = Outlet(ring)

    def silence_and_speak() -> None:
        outlet.silence()
        outlet.put(np.full(4, 2, "f4"))
        outlet.deliver(None)

    ring._buf.interruption = silence_and_speak
    out = np.empty(6, np.float32)
    assert ring.read(out) == 6
    assert outlet.heard == 0
    assert (ring.read(out), out.tolist()) == (4, [2, 2, 2, 2, 0, 0])
    assert outlet.heard == 4


def test_an_empty_ring_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one sample"):
        AudioRing(0)
