"""Communication between the nodes of one process: frames and results by reference, and the shared ledger.

Channels are named by resolved topic names, so namespaces and remappings mean the same within a process and
between processes. An image is published on DDS only if no node of this process receives it, or another
process subscribes to it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar, cast

from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.geometry.zones import NO_ZONES
from edge_vision.core.ledger import Ledger
from edge_vision.tracking.tracking_history import TrackingHistory

Receiver = Callable[[Frame, FrameEvent | None], None]
Callback = Callable[..., None]
S = TypeVar("S")


class TopicConflict(ValueError):
    """Two nodes of one process receive the images of the same topic."""


class ReceivedTopics(set[str]):
    """The image topics that the nodes of a process receive."""


class IntraProcess:
    """One per process and camera. Nodes register when they are constructed; look-ups are lock-free."""

    def __init__(self, of_process: dict[type, Any] | None = None) -> None:
        """of_process: the same dictionary for all cameras of a process."""
        self.ledger = Ledger()
        self.max_delay_ms: float | None = None
        """The delay that the camera's gate promises, None without a gate in this process."""
        self.zones = NO_ZONES
        """The zones of the camera's detector, also of one in another process."""
        self.tracks: TrackingHistory | None = None
        """The tracks of the camera's detector in this process, None if it tracks nothing."""
        self._of_process = {} if of_process is None else of_process
        self._seq = itertools.count(1)
        self._receivers: dict[str, Receiver] = {}
        self._senders: set[str] = set()
        self._own_subscriptions: Counter[str] = Counter()
        self._callbacks: dict[str, tuple[Callback, ...]] = {}

    def shared(self, kind: type[S]) -> S:
        """The one object of this class that all cameras of the process share."""
        if kind not in self._of_process:
            self._of_process[kind] = kind()
        return cast("S", self._of_process[kind])

    def next_seq(self) -> int:
        """The next frame number, unique for this camera in this process."""
        return next(self._seq)

    def register_receiver(self, topic: str, receive: Receiver) -> None:
        """Receive this topic's frames by reference, from any thread."""
        taken = self.shared(ReceivedTopics)
        if topic in taken:
            raise TopicConflict(f"two nodes of this process receive '{topic}': remap one of them")
        taken.add(topic)
        self._receivers[topic] = receive

    def receiver(self, topic: str) -> Receiver | None:
        """The receiver of this topic in this process."""
        return self._receivers.get(topic)

    def advertise(self, topic: str, active: bool = True) -> None:
        """Declare that a node of this process sends this topic, so its receiver needs no subscription."""
        (self._senders.add if active else self._senders.discard)(topic)

    def has_sender(self, topic: str) -> bool:
        """Whether a node of this process sends this topic."""
        return topic in self._senders

    def set_dds_subscriptions(self, topic: str, count: int) -> None:
        """Set how many DDS subscriptions to this topic its receiver has."""
        self._own_subscriptions[topic] = count

    def has_outside_subscribers(self, subscriptions: int, topic: str) -> bool:
        """Whether one of this many DDS subscriptions belongs to another node than the receiver."""
        return subscriptions > (self._own_subscriptions[topic] if topic in self._receivers else 0)

    def subscribe(self, topic: str, callback: Callback) -> None:
        """Receive the results of this topic by reference. Any thread calls `callback`, which must be quick
        and must not raise."""
        self._callbacks[topic] = (*self._callbacks.get(topic, ()), callback)

    def notify(self, topic: str, *values: Any) -> None:
        """Pass a result to the subscribers of this process."""
        for callback in self._callbacks.get(topic, ()):
            callback(*values)
