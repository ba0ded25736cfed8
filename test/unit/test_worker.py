"""The thread behind a mailbox: what it finishes, what it gives back, and what it does not wait for."""

from __future__ import annotations

import threading

import pytest

from edge_vision.core.concurrency.mailbox import MailboxClosed
from edge_vision.core.concurrency.worker import Worker


def test_it_works_on_the_newest_and_gives_the_rest_back():
    begun, go, done = threading.Event(), threading.Event(), []

    def work(item: str) -> None:
        begun.set()
        go.wait(10)
        done.append(item)

    worker: Worker[str] = Worker("test", work)
    assert worker.put("a") is None and begun.wait(10)
    assert worker.put("b") is None
    assert worker.put("c") == "b"
    go.set()
    while len(done) < 2:
        pass
    assert worker.stop(10) == [] and done == ["a", "c"]
    assert not worker.alive
    with pytest.raises(MailboxClosed):
        worker.put("d")


def test_stop_returns_the_waiting_and_the_hanging_item():
    begun, go = threading.Event(), threading.Event()

    def hang(item: str) -> None:
        begun.set()
        go.wait(30)

    worker: Worker[str] = Worker("test", hang)
    worker.put("a")
    assert begun.wait(10)
    worker.put("b")
    assert worker.stop(0.01) == ["b", "a"]
    assert worker.alive
    go.set()
