"""Who serves: one user at a time, replaced between two uses, never closed under its user."""

from __future__ import annotations

import threading

import pytest

from edge_vision.core.concurrency.lease import Lease


@pytest.fixture
def closed():
    return []


@pytest.fixture
def slot(closed):
    return Lease(closed.append)


def test_an_empty_one_serves_nothing(slot):
    assert slot.current is None and slot.acquire("job") is None
    assert slot.revoke(0.0) is None


def test_a_replaced_resource_is_closed_at_once_if_not_in_use(slot, closed):
    slot.replace("a")
    slot.replace("b")
    assert closed == ["a"] and slot.current == "b"


def test_a_resource_replaced_in_use_is_closed_on_release(slot, closed):
    slot.replace("a")
    assert slot.acquire(1) == "a"
    slot.replace("b")
    assert closed == []
    assert slot.release("a")
    assert closed == ["a"]
    assert slot.acquire(2) == "b"


def test_the_same_one_again_is_not_closed(slot, closed):
    slot.replace("a")
    slot.replace("a")
    assert closed == [] and slot.current == "a"


def test_a_use_that_lasts_can_be_given_up_with_its_job(slot, closed):
    slot.replace("a")
    slot.acquire("frame")
    assert slot.revoke(60.0) is None, "it has not lasted so long"
    assert slot.revoke(0.0) == ("a", "frame")
    assert slot.current is None and closed == []
    slot.replace("b")
    assert slot.acquire("frame") == "b", "somebody else's job now"
    assert not slot.release("a"), "it comes back at last, and has lost its job"
    assert closed == ["a"]
    assert slot.release("b") and slot.current == "b"


def test_a_use_that_has_ended_cannot_be_given_up(slot):
    slot.replace("a")
    slot.acquire("frame")
    assert slot.release("a")
    assert slot.revoke(0.0) is None and slot.current == "a"


def test_each_value_is_closed_once_and_never_in_use():
    """A user and a replacer in two threads, as a worker and a swap."""
    using, closed, wrong = [None], [], []

    def close(value):
        if value is using[0]:
            wrong.append(value)
        closed.append(value)

    slot: Lease[int, None] = Lease(close)
    slot.replace(0)
    end = threading.Event()

    def use() -> None:
        while not end.is_set():
            value = slot.acquire(None)
            using[0] = value
            if value in closed:
                wrong.append(value)
            using[0] = None
            slot.release(value)

    thread = threading.Thread(target=use)
    thread.start()
    for value in range(1, 2000):
        slot.replace(value)
    end.set()
    thread.join()
    assert not wrong
    assert sorted(closed) == list(range(1999)) and slot.current == 1999
