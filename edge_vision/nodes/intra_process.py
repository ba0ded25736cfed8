"""What the nodes of one process share: the hand-off of frames by reference, and the books.

Channels carry the resolved names of the topics, so that namespaces and remappings mean the same inside a
process and between processes. A node looks up who takes a topic here; only where nobody does, or where
somebody outside listens, does an image go to DDS. What the detector found goes back to the gate this way too.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any

from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.ledger import Ledger

Receiver = Callable[[Frame, FrameEvent | None], None]
Listener = Callable[..., None]


class IntraProcess:
    """One per process and camera. Connect at construction; the look-ups are lock-free reads."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self._seq = itertools.count(1)
        self._receivers: dict[str, Receiver] = {}
        self._senders: set[str] = set()
        self._own_subscriptions: Counter[str] = Counter()
        self._listeners: dict[str, tuple[Listener, ...]] = {}

    def next_seq(self) -> int:
        """A number for the next frame, unique in this process."""
        return next(self._seq)

    def register_receiver(self, topic: str, receive: Receiver) -> None:
        """Take this topic's frames by reference. receive may be called from any thread."""
        if topic in self._receivers:
            raise ValueError(f"two nodes of this process take '{topic}': remap one of them")
        self._receivers[topic] = receive

    def receiver(self, topic: str) -> Receiver | None:
        """Who takes this topic in this process."""
        return self._receivers.get(topic)

    def advertise(self, topic: str, active: bool = True) -> None:
        """Say that a node of this process sends this topic, so that its taker needs no subscription."""
        (self._senders.add if active else self._senders.discard)(topic)

    def has_sender(self, topic: str) -> bool:
        """True where a node of this process sends this topic."""
        return topic in self._senders

    def set_dds_subscriptions(self, topic: str, count: int) -> None:
        """Note how many DDS subscriptions to this topic the node that takes it has."""
        self._own_subscriptions[topic] = count

    def has_outside_subscribers(self, listeners: int, topic: str) -> bool:
        """True where of so many DDS listeners one does not get the frames by reference anyway."""
        return listeners > (self._own_subscriptions[topic] if topic in self._receivers else 0)

    def subscribe(self, topic: str, hear: Listener) -> None:
        """Hear by reference what a node of this process tells under this topic. Any thread may call hear,
        which must be quick and must not raise."""
        self._listeners[topic] = (*self._listeners.get(topic, ()), hear)

    def notify(self, topic: str, *what: Any) -> None:
        """Tell a result to whoever listens in this process: what it found, which model runs."""
        for hear in self._listeners.get(topic, ()):
            hear(*what)
