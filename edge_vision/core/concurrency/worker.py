"""Worker thread behind newest-wins mailboxes: it processes the most urgent of its clients' newest items.

Mailboxes replace a queue: under overload `put` returns the older item, to be counted as superseded, and the
age of the items stays constant.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar, cast

from edge_vision.core.concurrency.arbiter import Arbiter, ArbiterClient, Turn
from edge_vision.core.latency import LoadMeter
from edge_vision.core.running_clock import running_s

T = TypeVar("T")


class MailboxClosed(Exception):
    """Raised by `put` after `stop`."""


class WorkerClient(ArbiterClient[T]):
    """One client's side of a worker."""

    def __init__(
        self,
        worker: Worker[T],
        work: Callable[[T], None],
        limit_s: Callable[[], float],
        on_turn: Callable[[float], None],
    ) -> None:
        super().__init__(limit_s)
        self.work, self.on_turn = work, on_turn
        self.current: T | None = None
        """The item in work."""
        self._worker = worker

    def put(self, item: T) -> T | None:
        """Submit an item and return the one that it supersedes. Never waits for the work. Raises
        MailboxClosed after `stop`."""
        return self._worker.put(self, item)

    def stop(self, timeout_s: float) -> list[T]:
        """Leave, and return the items that are not finished: the waiting one, and the current one if it is
        still in work after the timeout. Another thread then works for the other clients."""
        return self._worker.stop(self, timeout_s)

    @property
    def alive(self) -> bool:
        """True until `stop`; afterwards, if an item hangs in `work`."""
        return self.current is not None or self._worker.has(self)


class Worker(Generic[T]):
    """Calls the clients' `work` with one item after the other. `work` must not raise.

    It has a thread while it has clients.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._arbiter: Arbiter[T] = Arbiter()
        self._lock = threading.Lock()
        self._done = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None
        self._started_s: float | None = None
        # A bare lock wakes the thread in half the time of a condition. Released while `_signalled`.
        self._filled = threading.Lock()
        self._filled.acquire()
        self._signalled = False
        self.load = LoadMeter()

    def join(
        self,
        work: Callable[[T], None],
        limit_s: Callable[[], float] = lambda: 1.0,
        on_turn: Callable[[float], None] = lambda waited_s: None,
    ) -> WorkerClient[T]:
        """Add a client. limit_s: gives the delay that it allows, which matters beside others. on_turn: called
        with the wait in s before each item."""
        client = WorkerClient(self, work, limit_s, on_turn)
        with self._lock:
            self._arbiter.clients.append(client)
            if self._thread is None:
                self._start_thread()
        return client

    def has(self, client: WorkerClient[T]) -> bool:
        """Whether a client has joined and not stopped."""
        return client in self._arbiter.clients

    def put(self, client: WorkerClient[T], item: T) -> T | None:
        with self._lock:
            if client not in self._arbiter.clients:
                raise MailboxClosed
            superseded = self._arbiter.put(client, item, running_s())
            self._signal()
        return superseded

    def stop(self, client: WorkerClient[T], timeout_s: float) -> list[T]:
        with self._lock:
            if client not in self._arbiter.clients:
                return []
            left = [self._arbiter.leave(client)]
            if not self._done.wait_for(lambda: client.current is None, timeout_s):
                left.append(client.current)
                self._thread, self._started_s = None, None
                if self._arbiter.clients:
                    self._start_thread()
            elif not self._arbiter.clients:
                self._signal()  # The thread ends.
        return [item for item in left if item is not None]

    @property
    def busy_s(self) -> float:
        """How long the present item has been in work, 0 if none is."""
        started_s = self._started_s
        return 0.0 if started_s is None else running_s() - started_s

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()
        if self._arbiter.waiting:
            self._signal()

    def _signal(self) -> None:
        if not self._signalled:
            self._signalled = True
            self._filled.release()

    def _run(self) -> None:
        while self._process_next():
            pass  # An item must not be kept alive until the next one.

    def _process_next(self) -> bool:
        """False if this thread has to end."""
        turn = self._next()
        if turn is None:
            return False
        client = cast("WorkerClient[T]", turn.client)
        client.on_turn(turn.waited_s)
        client.work(turn.item)
        return self._finish(client)

    def _next(self) -> Turn[T] | None:
        """Wait for the most urgent item. None once there are no clients."""
        while True:
            self._filled.acquire()
            with self._lock:
                self._signalled = False
                if not self._arbiter.clients:
                    self._thread = None
                    return None
                now_s = running_s()
                turn = self._arbiter.take(now_s)
                if self._arbiter.waiting:
                    self._signal()
                if turn:
                    cast("WorkerClient[T]", turn.client).current = turn.item
                    self._started_s = now_s
                    return turn

    def _finish(self, client: WorkerClient[T]) -> bool:
        """An item is done. False if another thread has replaced this one meanwhile."""
        with self._lock:
            client.current = None
            self._done.notify_all()
            if self._thread is not threading.current_thread():
                return False
            if self._started_s is not None:
                self.load.add(self._started_s, running_s())
            self._started_s = None
            return True
