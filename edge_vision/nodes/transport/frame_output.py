"""Forwards the frames and frame events of a stage: by reference within the process, otherwise over DDS."""

from __future__ import annotations

from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.nodes.interface.frame_event_messages import frame_event_message
from edge_vision.nodes.interface.image_messages import ImageWriter
from edge_vision.nodes.transport.intra_process import IntraProcess, Receiver
from edge_vision.nodes.transport.lazy_publisher import LazyPublisher


class FrameOutput:
    """The output of one stage. Any thread may call it; nothing here raises.

    image_topic, event_topic: resolved names, "" = the stage has no such output.
    """

    def __init__(self, hub: IntraProcess, image_topic: str, event_topic: str) -> None:
        self._hub = hub
        self._image_topic, self._event_topic = image_topic, event_topic
        self._writer = ImageWriter()
        self.images: LazyPublisher | None = None
        self.events: LazyPublisher | None = None
        if image_topic:
            hub.advertise(image_topic)

    def open(self, images: LazyPublisher | None, events: LazyPublisher | None) -> None:
        """Publish on these from now on."""
        self.images, self.events = images, events

    def close(self) -> None:
        """Publish only within the process from now on."""
        self.images = self.events = None

    @property
    def receiver(self) -> Receiver | None:
        """The next stage, if it is in this process."""
        return self._hub.receiver(self._image_topic)

    def forward(self, frame: Frame, event: FrameEvent) -> None:
        """Pass a frame to the next stage."""
        receive = self.receiver
        if receive is None:
            # The event first: it announces the image, so that the next stage detects the loss of the image.
            self.publish(frame, event)
            self._hub.ledger.settle(frame.seq, "handed_on", event.reason)
        else:
            # The next stage first: the frame need not wait for the publication.
            receive(frame, event)
            self.publish(frame, event)

    def publish(self, frame: Frame, event: FrameEvent) -> None:
        """Publish the event, and the image if a node of another process subscribes to it."""
        self.publish_event(event)
        images = self.images
        if images and self._hub.has_outside_subscribers(images.subscription_count, self._image_topic):
            images.try_publish(lambda: self._writer.message(frame))

    def publish_event(self, event: FrameEvent) -> None:
        """Publish an event within the process, and over DDS if it has a subscriber there."""
        self.notify(event)
        events = self.events
        if events and events.subscription_count:
            events.try_publish(lambda: frame_event_message(event))

    def notify(self, event: FrameEvent) -> None:
        """Publish an event within the process only."""
        if self._event_topic:
            self._hub.notify(self._event_topic, event)
