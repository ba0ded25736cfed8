"""How long a resting gate looks at nothing."""

from __future__ import annotations

from edge_vision.gate.back_off import FIRST_MS, MAX_MS, BackOff

MS = 1_000_000


def test_rests_grow_to_a_limit_and_start_anew():
    rest, at_ms, lengths = BackOff(), 0.0, []
    for _ in range(6):
        rest.begin(round(at_ms * MS), grows=True)
        assert rest.on
        start_ms = at_ms
        while not rest.is_over(round(at_ms * MS)):
            at_ms += 10
        lengths.append(at_ms - start_ms)
        rest.wake()
        assert not rest.on
    assert lengths == [FIRST_MS * 2**n for n in range(4)] + [MAX_MS] * 2
    rest.end()
    rest.begin(0, grows=True)
    assert not rest.is_over(round(FIRST_MS * MS) - 1) and rest.is_over(round(FIRST_MS * MS))


def test_a_rest_that_does_not_grow_stays_as_long():
    rest = BackOff()
    for _ in range(3):
        rest.begin(0, grows=False)
        assert not rest.is_over(round(FIRST_MS * MS) - 1) and rest.is_over(round(FIRST_MS * MS))


def test_only_the_first_look_after_it_compares_with_what_was_before():
    rest = BackOff()
    assert not rest.woke(), "there was none"
    rest.begin(0, grows=True)
    rest.wake(compares=True)
    assert rest.woke() and not rest.woke()
    rest.begin(0, grows=True)
    rest.wake()
    assert not rest.woke()
    rest.begin(0, grows=True)
    rest.wake(compares=True)
    rest.end()
    assert not rest.woke(), "something else came up"
