"""The newest-wins slot, alone and between threads."""

from __future__ import annotations

import threading

import pytest

from edge_vision.core.concurrency.mailbox import Mailbox, MailboxClosed


def test_the_newest_wins_and_the_older_comes_back():
    box: Mailbox[str] = Mailbox()
    assert box.put("a") is None
    assert box.put("b") == "a"
    assert box.put("c") == "b"
    assert box.take(0) == "c"
    assert box.take(0.001) is None


def test_close_returns_the_remaining_item_and_rejects_more():
    box: Mailbox[str] = Mailbox()
    box.put("a")
    assert not box.closed
    assert box.close() == "a"
    assert box.closed
    assert box.close() is None
    assert box.take() is None
    with pytest.raises(MailboxClosed):
        box.put("b")


def test_close_wakes_the_taker():
    box: Mailbox[int] = Mailbox()
    taken = []
    taker = threading.Thread(target=lambda: taken.append(box.take()))
    taker.start()
    box.close()
    taker.join(10)
    assert taken == [None]


def test_put_wakes_the_taker():
    box: Mailbox[int] = Mailbox()
    taken = []
    taker = threading.Thread(target=lambda: taken.append(box.take()))
    taker.start()
    box.put(7)
    taker.join(10)
    assert taken == [7]


@pytest.mark.timeout(60)
def test_nothing_is_lost_or_doubled_between_threads():
    """put == taken + superseded + left, as sets; what one thread put comes out in its order."""
    box: Mailbox[tuple[int, int]] = Mailbox()
    per_thread, threads = 3000, 3
    superseded: list[list[tuple[int, int]]] = [[] for _ in range(threads)]
    taken: list[tuple[int, int]] = []

    def put(me: int) -> None:
        for number in range(per_thread):
            older = box.put((me, number))
            if older is not None:
                superseded[me].append(older)

    def take() -> None:
        while not box.closed:
            item = box.take()
            if item is not None:
                taken.append(item)

    taker = threading.Thread(target=take)
    putters = [threading.Thread(target=put, args=(me,)) for me in range(threads)]
    for thread in [taker, *putters]:
        thread.start()
    for thread in putters:
        thread.join(30)
    left = box.close()
    taker.join(30)
    ends = taken + [item for one in superseded for item in one] + ([left] if left else [])
    assert sorted(ends) == [(me, number) for me in range(threads) for number in range(per_thread)]
    for me in range(threads):
        mine = [number for thread, number in taken if thread == me]
        assert mine == sorted(mine)
