"""The thread behind mailboxes: the order of its work, clients that come and go, and one that hangs."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator

import pytest

from edge_vision.core.concurrency.worker import MailboxClosed, Worker
from edge_vision.core.latency import LoadMeter


class Recorder:
    """Work that records its items, and waits for `go` on those that begin with "slow"."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Semaphore(0), threading.Event()
        self.done: list[str] = []
        self.changed = threading.Condition()

    def work(self, item: str) -> None:
        self.begun.release()
        if item.startswith("slow"):
            self.go.wait(30)
        with self.changed:
            self.done.append(item)
            self.changed.notify_all()

    def wait_for(self, count: int) -> list[str]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.done) >= count, 30), self.done
        return self.done


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.go.set()


def always(limit_s: float):
    return lambda: limit_s


def threads(name: str) -> int:
    return sum(thread.name == name for thread in threading.enumerate())


def test_the_most_urgent_is_next_and_the_newest_wins(recorder):
    worker: Worker[str] = Worker("test order")
    waits: list[float] = []
    patient = worker.join(recorder.work, always(3600.0))
    hurried = worker.join(recorder.work, always(0.001), waits.append)
    patient.put("slow")
    assert recorder.begun.acquire(timeout=30)
    assert patient.put("patient 1") is None
    assert patient.put("patient 2") == "patient 1"
    assert hurried.put("hurried") is None
    assert worker.busy_s > 0.0
    recorder.go.set()
    assert recorder.wait_for(3) == ["slow", "hurried", "patient 2"]
    assert len(waits) == 1 and waits[0] >= 0.0
    assert worker.load.share(0.0) >= 0.0


def test_one_thread_serves_all_and_ends_with_the_last_client(recorder):
    worker: Worker[str] = Worker("test threads")
    for _ in range(3):
        clients = [worker.join(recorder.work, always(1.0)) for _ in range(4)]
        for number, client in enumerate(clients):
            client.put(f"item {number}")
        recorder.wait_for(4)
        assert threads("test threads") == 1
        recorder.done.clear()
        for client in clients:
            assert client.stop(30) == [] and not client.alive
            with pytest.raises(MailboxClosed):
                client.put("late")
        for thread in threading.enumerate():
            if thread.name == "test threads":
                thread.join(30)
        assert threads("test threads") == 0


def test_a_client_that_leaves_takes_its_waiting_item_and_leaves_the_others_alone(recorder):
    worker: Worker[str] = Worker("test leave")
    front, rear = (worker.join(recorder.work, always(1.0)) for _ in range(2))
    rear.put("slow")
    assert recorder.begun.acquire(timeout=30)
    front.put("front")
    assert front.stop(30) == ["front"], "without waiting for the item of the other"
    assert front.stop(30) == [], "once"
    recorder.go.set()
    rear.put("rear")
    assert recorder.wait_for(2) == ["slow", "rear"]


def test_a_client_waits_for_its_own_item_in_work(recorder):
    worker: Worker[str] = Worker("test own")
    client = worker.join(recorder.work, always(1.0))
    client.put("slow")
    assert recorder.begun.acquire(timeout=30)
    threading.Timer(0.05, recorder.go.set).start()
    assert client.stop(30) == [] and recorder.done == ["slow"]


def test_a_hanging_item_goes_back_and_another_thread_serves_the_others(recorder):
    worker: Worker[str] = Worker("test hang")
    front, rear = (worker.join(recorder.work, always(1.0)) for _ in range(2))
    front.put("slow")
    assert recorder.begun.acquire(timeout=30)
    front.put("waiting")
    rear.put("rear")
    assert front.stop(0.0) == ["waiting", "slow"] and front.alive
    assert recorder.wait_for(1) == ["rear"]
    # It comes back while the first thread still hangs.
    again = worker.join(recorder.work, always(1.0))
    again.put("again")
    assert recorder.wait_for(2) == ["rear", "again"]
    recorder.go.set()
    assert recorder.wait_for(3)[-1] == "slow"
    while front.alive or threads("test hang") > 1:
        threading.Event().wait(0.001)
    rear.put("rear 2")
    assert recorder.wait_for(4)[-1] == "rear 2"


def test_a_lone_client_that_hangs_leaves_a_worker_that_works(recorder):
    worker: Worker[str] = Worker("test lone")
    client = worker.join(recorder.work, always(1.0))
    client.put("slow")
    assert recorder.begun.acquire(timeout=30)
    assert client.stop(0.0) == ["slow"]
    other = worker.join(recorder.work, always(1.0))
    other.put("other")
    assert recorder.wait_for(1) == ["other"]


def test_an_item_is_not_kept_alive_after_its_work():
    class Item:
        pass

    worker: Worker[Item] = Worker("test memory")
    done = threading.Semaphore(0)
    client = worker.join(lambda item: done.release())
    item = Item()
    kept = weakref.ref(item)
    client.put(item)
    del item
    assert done.acquire(timeout=30)
    while kept() is not None:
        threading.Event().wait(0.001)
    assert client.stop(30) == []


@pytest.mark.timeout(60)
def test_every_item_of_every_client_is_done_superseded_or_left():
    worker: Worker[tuple[int, int]] = Worker("test sums")
    done: list[tuple[int, int]] = []
    clients = [worker.join(done.append, always(0.1 * (1 + i))) for i in range(4)]
    back: list[list[tuple[int, int]]] = [[] for _ in clients]
    per_client = 2000

    def put(me: int) -> None:
        for number in range(per_client):
            older = clients[me].put((me, number))
            if older is not None:
                back[me].append(older)

    putters = [threading.Thread(target=put, args=(me,)) for me in range(len(clients))]
    for thread in putters:
        thread.start()
    for thread in putters:
        thread.join(30)
    for me, client in enumerate(clients):
        back[me] += client.stop(30)
    ends = done + [item for one in back for item in one]
    assert sorted(ends) == [(me, number) for me in range(len(clients)) for number in range(per_client)]
    for me in range(len(clients)):
        mine = [number for who, number in done if who == me]
        assert mine == sorted(mine), "in its order"


def test_the_load_is_that_of_the_window():
    load = LoadMeter(window_s=10.0)
    assert load.share(5.0) == 0.0
    load.add(90.0, 91.0)
    load.add(95.0, 98.0)
    assert load.share(100.0) == pytest.approx(0.4)
    assert load.share(100.5) == pytest.approx(0.35), "half of the first has left the window"
    load.add(110.0, 120.0)
    assert load.share(120.0) == pytest.approx(1.0) and load.share(200.0) == 0.0
