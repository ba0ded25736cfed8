"""`route: auto` over simulated links: where each frame is inferred, and how old its detections are."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.remote.routing import PATIENCE, Router

LOCAL_S, PERIOD_S, DEADLINE_S = 0.040, 1 / 30, 0.72
Link = Callable[[float], float]
"""When a request is sent -> how long it takes; infinity: it fails at the deadline."""


def ages(link: Link, seconds: float, local_s: float = LOCAL_S) -> tuple[np.ndarray, np.ndarray]:
    """Times of the frames of a camera and the ages of their detections, as `RoutedSession` decides."""
    router, now_s, pending = Router(local_s, min(link(0.0), DEADLINE_S)), 0.0, None
    at_s, found = [], []

    def ended(until_s: float) -> None:
        nonlocal pending
        if pending is not None and pending[0] <= until_s:
            end_s, took_s = pending
            pending = None
            if math.isfinite(took_s):
                router.add_remote(end_s, took_s)
            else:
                router.add_failure(end_s)

    while now_s < seconds:
        ended(now_s)
        wait_s = None if pending else router.wait_s(now_s)
        age_s = local_s
        if wait_s is not None:
            took_s = link(now_s)
            pending = (now_s + min(took_s, DEADLINE_S), took_s)
            age_s = took_s if took_s <= wait_s else wait_s + local_s
        ended(now_s + age_s)
        if wait_s is None or age_s != took_s:
            router.add_local(now_s + age_s, local_s)
        at_s.append(now_s)
        found.append(age_s)
        now_s += max(PERIOD_S, age_s)
    return np.array(at_s), np.array(found)


@given(st.lists(st.floats(1e-4, 3.0) | st.just(math.inf), min_size=1, max_size=40), st.floats(0.005, 0.5))
@settings(max_examples=40, deadline=None)
def test_no_link_makes_a_frame_older_than_the_bound(times_s, local_s):
    def link(now_s: float) -> float:
        return times_s[int(now_s / 0.1) % len(times_s)]

    _, found = ages(link, 4.0, local_s)
    assert found.max() <= (1 + PATIENCE) * local_s + 1e-9


@given(st.floats(0.05, 20.0))
@settings(max_examples=25, deadline=None)
def test_with_a_steady_link_it_is_as_good_as_the_better_of_both(ratio):
    _, found = ages(lambda _: ratio * LOCAL_S, 40.0)
    assert found.mean() <= 1.1 * min(ratio, 1.0) * LOCAL_S


@pytest.mark.parametrize("server_s", [0.004, 0.015, 0.025, 0.035])
def test_a_link_that_becomes_slow_and_fast_again(server_s):
    """1 -> 200 -> 1 ms, 20 s each: within 10 % of the better of both."""

    def link(now_s: float) -> float:
        return server_s + (0.2 if 20.0 <= now_s < 40.0 else 0.001)

    at_s, found = ages(link, 60.0)
    better_s = np.array([server_s + 0.001, LOCAL_S, server_s + 0.001])
    mean_s = np.array([found[(at_s >= 20 * phase) & (at_s < 20 * phase + 20)].mean() for phase in range(3)])
    assert mean_s.mean() <= 1.1 * better_s.mean()
    # A much faster server is missed most while it is not yet known to be back.
    assert (mean_s <= better_s + np.maximum(0.1 * better_s, 0.05 * LOCAL_S)).all()


@pytest.mark.parametrize("loss", [0.01, 0.1, 0.5])
def test_losses_cost_less_than_inferring_here(loss):
    dice = random.Random(1)
    _, found = ages(lambda _: 0.02 + (0.2 if dice.random() < loss else 0.0), 120.0)
    assert found.mean() <= 1.05 * LOCAL_S


def test_after_an_outage_it_returns_by_itself():
    at_s, found = ages(lambda now_s: math.inf if 5.0 <= now_s < 25.0 else 0.01, 90.0)
    assert np.median(found[(at_s > 10) & (at_s < 25)]) == LOCAL_S
    assert (found[at_s > 60] == 0.01).mean() > 0.99
    assert found.max() <= (1 + PATIENCE) * LOCAL_S


def test_a_failing_server_is_asked_ever_more_rarely():
    asked: list[float] = []

    def link(now_s: float) -> float:
        asked.append(now_s)
        return math.inf if now_s else 0.01

    ages(link, 300.0)
    assert len(asked) <= 20
    assert 25.0 <= max(np.diff(asked)) <= 35.0
