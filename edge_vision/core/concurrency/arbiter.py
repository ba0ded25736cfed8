"""Newest-wins mailboxes of several clients in front of one consumer: which item is next.

The next item is the most urgent one: that whose client has waited for the largest share of the delay that it
allows. A newer item replaces the waiting one and keeps its wait, so a fast client neither gains nor starves.
Among equals, the one served longest ago is next. Under overload the waits of all clients therefore exceed
their limits by the same factor: the accumulating priority of L. Kleinrock, "A delay dependent queue
discipline", Naval Research Logistics Quarterly 11, 1964.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class ArbiterClient(Generic[T]):
    """One client's mailbox. limit_s: gives the delay that it allows, above 0."""

    def __init__(self, limit_s: Callable[[], float]) -> None:
        self.limit_s = limit_s
        self.item: T | None = None
        self.since_s = 0.0
        """Arrival of its first item since its last turn."""
        self.last_turn = 0

    def urgency(self, now_s: float) -> float:
        """The share of its delay that the waiting item has used up."""
        return (now_s - self.since_s) / self.limit_s()


class Turn(NamedTuple, Generic[T]):
    """What is next. waited_s: since the client's first item after its previous turn."""

    client: ArbiterClient[T]
    item: T
    waited_s: float


class Arbiter(Generic[T]):
    """Not thread-safe. The caller passes the time, of any steady clock."""

    def __init__(self) -> None:
        self.clients: list[ArbiterClient[T]] = []
        self._turns = 0

    @property
    def waiting(self) -> list[ArbiterClient[T]]:
        """The clients with an item."""
        return [client for client in self.clients if client.item is not None]

    def put(self, client: ArbiterClient[T], item: T, now_s: float) -> T | None:
        """Store a client's item and return the one that it supersedes, if any."""
        superseded, client.item = client.item, item
        if superseded is None:
            client.since_s = now_s
        return superseded

    def take(self, now_s: float) -> Turn[T] | None:
        """Remove the most urgent item. None if no client waits."""
        waiting = self.waiting
        if not waiting:
            return None
        client = waiting[0]
        if len(waiting) > 1:
            client = max(waiting, key=lambda one: (one.urgency(now_s), -one.last_turn))
        self._turns += 1
        client.last_turn = self._turns
        item, client.item = client.item, None
        assert item is not None
        return Turn(client, item, now_s - client.since_s)

    def leave(self, client: ArbiterClient[T]) -> T | None:
        """Remove a client and return its waiting item, if any."""
        if client in self.clients:
            self.clients.remove(client)
        item, client.item = client.item, None
        return item
