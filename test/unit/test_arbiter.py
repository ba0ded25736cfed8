"""Which client is served next: by urgency, fair, newest wins, and none starves."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.core.concurrency.arbiter import Arbiter, ArbiterClient

LIMITS = st.lists(st.floats(0.01, 2.0), min_size=2, max_size=6)


def joined(*limits_s: float) -> tuple[Arbiter[str], list[ArbiterClient[str]]]:
    arbiter: Arbiter[str] = Arbiter()
    arbiter.clients = [ArbiterClient(lambda limit_s=limit_s: limit_s) for limit_s in limits_s]
    return arbiter, list(arbiter.clients)


class Outcome(NamedTuple):
    """Each client's waits at its turns, the longest of them or until now, and what became of the items."""

    waits: list[list[float]]
    longest_s: list[float]
    fates: Counter[str]


def simulated(limits_s: list[float], periods_s: list[float], service_s: float, duration_s: float) -> Outcome:
    """Client i puts an item every periods_s[i]; one turn takes service_s."""
    arbiter, clients = joined(*limits_s)
    due_s, longest_s, fates = [0.0] * len(clients), [0.0] * len(clients), Counter[str]()
    waits: list[list[float]] = [[] for _ in clients]
    now_s = 0.0
    while now_s < duration_s:
        for i, client in enumerate(clients):
            while due_s[i] <= now_s:
                fates["put"] += 1
                fates["superseded"] += arbiter.put(client, f"{i} at {due_s[i]}", due_s[i]) is not None
                due_s[i] += periods_s[i]
        turn = arbiter.take(now_s)
        if turn is None:
            now_s = min(due_s)
            continue
        fates["taken"] += 1
        waits[clients.index(turn.client)].append(turn.waited_s)
        now_s += service_s
    fates["left"] = len(arbiter.waiting)
    for i, client in enumerate(clients):
        longest_s[i] = max([*waits[i], now_s - client.since_s if client.item else 0.0])
    return Outcome(waits, longest_s, fates)


def test_the_newest_item_wins_and_keeps_the_wait_of_the_first():
    arbiter, (front, rear) = joined(1.0, 1.0)
    assert arbiter.take(0.0) is None
    assert arbiter.put(front, "front 1", 0.0) is None
    assert arbiter.put(rear, "rear 1", 1.0) is None
    assert arbiter.put(front, "front 2", 5.0) == "front 1"
    turn = arbiter.take(6.0)
    assert turn is not None and (turn.client, turn.item, turn.waited_s) == (front, "front 2", 6.0)
    turn = arbiter.take(6.0)
    assert turn is not None and (turn.client, turn.item, turn.waited_s) == (rear, "rear 1", 5.0)
    assert arbiter.take(7.0) is None


def test_a_shorter_limit_is_more_urgent_and_a_longer_wait_too():
    arbiter, (fast, slow) = joined(0.1, 1.0)
    arbiter.put(slow, "slow", 0.0)
    arbiter.put(fast, "fast", 0.9)
    assert arbiter.take(0.95).client is slow, "0.95 of its limit, against 0.5"
    arbiter.put(slow, "slow", 1.0)
    arbiter.put(fast, "fast", 1.9)
    assert arbiter.take(2.1).client is fast, "twice its limit, against 1.1"


def test_equals_take_turns():
    arbiter, clients = joined(1.0, 1.0, 1.0)
    order = []
    for _ in range(3):
        for client in clients:
            if client.item is None:
                arbiter.put(client, "item", 7.0)
        order.append(clients.index(arbiter.take(8.0).client))
    assert order == [0, 1, 2]


def test_a_client_that_leaves_gives_its_item_back_and_no_longer_counts():
    arbiter, (front, rear) = joined(1.0, 1.0)
    arbiter.put(front, "front", 0.0)
    arbiter.put(rear, "rear", 1.0)
    assert arbiter.leave(front) == "front"
    assert arbiter.take(2.0).client is rear and arbiter.take(2.0) is None
    assert arbiter.leave(front) is None and arbiter.leave(rear) is None and arbiter.clients == []


@given(LIMITS, st.data())
def test_what_is_taken_is_the_newest_of_the_most_urgent(limits_s: list[float], data: st.DataObject):
    """Against a plain model, with any sequence of puts and takes."""
    arbiter, clients = joined(*limits_s)
    model: dict[int, tuple[str, float]] = {}
    now_s = 0.0
    for number in range(data.draw(st.integers(1, 40))):
        now_s += data.draw(st.floats(0.0, 0.5))
        who = data.draw(st.integers(-1, len(clients) - 1))
        if who >= 0:
            before = model.get(who)
            superseded = arbiter.put(clients[who], f"item {number}", now_s)
            assert superseded == (before[0] if before else None)
            model[who] = (f"item {number}", before[1] if before else now_s)
            continue
        turn = arbiter.take(now_s)
        if not model:
            assert turn is None
            continue
        chosen = clients.index(turn.client)
        shares = {i: (now_s - since_s) / limits_s[i] for i, (_, since_s) in model.items()}
        assert shares[chosen] == max(shares.values())
        assert turn.item == model.pop(chosen)[0]


@settings(deadline=None)
@given(LIMITS, st.lists(st.floats(0.05, 5.0), min_size=6, max_size=6), st.floats(0.001, 0.5))
def test_nobody_starves(limits_s: list[float], periods: list[float], service_s: float):
    """However often the others put. periods: in units of the service.

    While a client's urgency exceeds u, another one has a turn at most once per u of its own limit. So from
    u = 2 * sum(service / limit) on, the others need at most half of the time and one turn each, and the
    client is next within twice that.
    """
    periods_s = [service_s * period for period in periods[: len(limits_s)]]
    _, longest_s, fates = simulated(limits_s, periods_s, service_s, 200.0 * service_s)
    assert fates["put"] == fates["taken"] + fates["superseded"] + fates["left"]
    for one_s, limit_s in zip(longest_s, limits_s, strict=True):
        others = sum(1.0 / other_s for other_s in limits_s) - 1.0 / limit_s
        bound_s = 2.0 * service_s * (limit_s * others + len(limits_s))
        assert one_s <= bound_s * (1.0 + 1e-9)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 6), st.floats(0.005, 0.1))
def test_equals_are_served_equally_often_under_overload(count: int, service_s: float):
    """One of them puts ten times as often as the others."""
    periods_s = [service_s / 10.0] + [service_s] * (count - 1)
    waits, _, _ = simulated([0.1] * count, periods_s, service_s, 300 * service_s)
    turns = [len(own) for own in waits]
    assert max(turns) - min(turns) <= 2


@pytest.mark.parametrize("limits_s", [(0.05, 0.1), (0.1, 0.1, 0.4), (0.05, 0.1, 0.2, 0.2)])
def test_under_overload_all_exceed_their_limits_by_the_same_factor(limits_s: tuple[float, ...]):
    service_s = 0.06
    waits, _, _ = simulated(list(limits_s), [0.001] * len(limits_s), service_s, 60.0)
    stretch = [max(own) / limit_s for own, limit_s in zip(waits, limits_s, strict=True)]
    # The bound of the sum: each of them needs service_s per stretched limit.
    needed = sum(service_s / limit_s for limit_s in limits_s)
    assert needed > 1.0
    # A wait ends between two turns, so it is one turn off at most.
    for one, limit_s in zip(stretch, limits_s, strict=True):
        assert one == pytest.approx(needed, abs=1.5 * service_s / limit_s)


def test_within_capacity_a_slow_client_beside_one_at_ten_times_its_rate_waits_two_turns_at_most():
    waits, _, fates = simulated([0.1, 0.1], [0.1, 0.01], 0.02, 60.0)
    # The one in work, and the fast one if it has waited longer.
    assert max(waits[0]) <= 2 * 0.02 + 1e-9
    assert fates["superseded"] > 0 and len(waits[0]) == pytest.approx(600, abs=2)
