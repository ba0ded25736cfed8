"""The ring: never over its bound, in order, nothing lost without a count."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from edge_vision.record.ring import ENTRY_BYTES, Ring

ACTIONS = st.one_of(
    st.tuples(st.just("add"), st.integers(0, 3000)),
    st.tuples(st.just("forget"), st.integers(0, 60)),
    st.tuples(st.just("resize"), st.integers(1, 20_000)),
    st.tuples(st.just("take"), st.integers(0, 60)),
)


@given(bound=st.integers(1, 20_000), actions=st.lists(ACTIONS, max_size=80))
def test_whatever_comes_it_stays_within_its_bound_and_counts(bound, actions):
    ring, expected = Ring(bound), []
    for now_ns, (action, value) in enumerate(actions):
        if action == "add":
            data = bytes(value)
            fits = value + ENTRY_BYTES <= ring.max_bytes
            assert ring.add("/a", now_ns, data) == (ring.added if fits else 0)
            if fits:
                expected.append((ring.added, now_ns, data))
        elif action == "forget":
            ring.forget(value)
        elif action == "resize":
            ring.resize(value)
        held = ring.take(1, 10**9)
        assert ring.bytes == sum(one.size for one in held) <= ring.max_bytes
        assert ring.added == len(held) + ring.removed == len(expected)
        # What is left is the newest part, unchanged and in order.
        assert [(one.number, one.time_ns, one.data) for one in held] == expected[ring.removed :]
        if action == "forget":
            assert all(one.time_ns >= value for one in held)
        if action == "take":
            assert ring.take(value, 10**9) == [one for one in held if one.number >= value]


def test_a_batch_is_bounded_and_has_at_least_one_message():
    ring = Ring(10**6)
    for number in range(10):
        ring.add("/a", number, bytes(1000))
    assert len(ring.take(1, 2 * (1000 + ENTRY_BYTES))) == 2
    assert [one.number for one in ring.take(10, 1)] == [10]
    assert ring.take(11, 10**6) == []


def test_the_first_entry_since_a_time():
    ring = Ring(10**6)
    assert ring.first_since(0) == 1
    for time_ns in (10, 30, 20, 40):
        ring.add("/a", time_ns, b"")
    assert [ring.first_since(at) for at in (0, 11, 40, 41)] == [1, 2, 4, 5]


def test_many_threads_may_add():
    ring = Ring(50_000)
    threads = [threading.Thread(target=lambda: [ring.add("/a", 0, b"x" * 100) for _ in range(500)])] * 1
    threads += [threading.Thread(target=lambda: [ring.add("/b", 0, b"y" * 900) for _ in range(500)])]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    held = ring.take(1, 10**9)
    assert ring.added == 1000 == len(held) + ring.removed
    assert [one.number for one in held] == list(range(ring.removed + 1, 1001))
    assert ring.bytes == sum(one.size for one in held) <= 50_000


def test_a_message_larger_than_the_ring_is_refused_and_removes_nothing():
    ring = Ring(1000)
    assert ring.add("/a", 1, bytes(100))
    assert not ring.add("/a", 2, bytes(1000))
    assert (len(ring), ring.refused, ring.removed) == (1, 1, 0)
