"""What the tests of several nodes share: a street before the chain, and the two ways to run it."""

from __future__ import annotations

import numpy as np
from model_cases import video_frame
from ros_cases import (
    CHAIN,
    ONLY_CHANGES,
    Detection2DArray,
    Image,
    Robot,
    Running,
    adds_up,
    detections_of,
    image_message,
    matched,
    stamp_of,
)

from edge_vision.core.frame_event import FrameEvent
from edge_vision.nodes.interface.detection_messages import detections_from_message

STEP_NS = 10**8
WAYS = {"one process": False, "separate processes": True}
"""Nodes that hand images on by reference, and nodes that know each other by DDS alone."""
INNER_TOPICS = (
    "/gate/image",
    "/gate_events",
    "/image_accepted",
    "/cascade_events",
    "/detections",
    "/vision_info",
)


def wait_for_stages(robot: Robot, running: Running) -> None:
    """Wait until separate stages have found each other: what is sent before is lost."""
    robot.wait(lambda: all(matched(topic) for topic in INNER_TOPICS), "the stages to find each other")
    for name in ("gate", "cascade"):
        node = running[name]
        robot.wait(lambda node=node: node.output.images.subscription_count, f"{name} to know the next stage")
        robot.wait(
            lambda node=node: node.output.events.subscription_count, f"{name}'s frame events to be heard"
        )
    robot.wait(lambda: running["gate"]._feedback.model_known, "the gate to know the model")


class StreetScene:
    """A camera in front of a street with people, one image every 100 ms of its stamps."""

    def __init__(self, running: Running, robot: Robot) -> None:
        self.running, self.robot = running, robot
        self.camera = robot.publisher(Image, "image_raw")
        self.street = video_frame("vtest.avi", 200).image
        self.count, self.last_ns = 0, 10**9 + 7

    def publish(self, image: np.ndarray | None = None, step_ns: int = STEP_NS) -> int:
        """Publish one image; gives its stamp."""
        self.count += 1
        self.last_ns += step_ns
        self.camera.publish(image_message(self.street if image is None else image, self.last_ns, "cam"))
        return self.last_ns

    def settled(self) -> dict[str, int]:
        """The ledger once all images have ended."""
        ledger = self.running.settled(self.count)
        assert adds_up(ledger)
        return ledger


class TrackedScene(StreetScene):
    """The chain in front of a street with people, and a robot that hears `detections` and `tracks`."""

    def __init__(self, start, robot, separate=False, publish=True, gate=(), **overrides) -> None:
        overrides["gate"] = {**ONLY_CHANGES, **dict(gate)}
        overrides["detector"] = {"publish_tracks": publish, "publish_low_score": False}
        self.robot, self.running = robot, start(CHAIN, overrides, separate=separate)
        if separate:
            wait_for_stages(robot, self.running)
        self.inferred = detections_of(robot)
        self._complete = publish
        self.tracks = detections_of(robot, "tracks") if publish else []
        super().__init__(self.running, robot)

    def show(self, image: np.ndarray | None = None, step_ns: int = STEP_NS) -> dict[str, int]:
        """Publish one image, and wait for its end; gives the ledger."""
        self.publish(image, step_ns)
        return self.settled()

    def publish_event(
        self, stamp_ns: int, stage: str, fate: str, reason: str, motion: np.ndarray | None
    ) -> None:
        """A frame event to the detector, as the stages in its process send them."""
        seq = self.running.hub.next_seq()
        frame_event = FrameEvent(stamp_ns, "cam", stage, fate, reason, seq=seq, camera_motion=motion)
        self.running["detector"].on_frame_event(frame_event)

    @property
    def tracked(self) -> list[Detection2DArray]:
        """What was published on `tracks` for frames that were not inferred."""
        inferred = set(map(stamp_of, self.inferred))
        return [one for one in self.tracks if stamp_of(one) not in inferred]

    def heard(self, inferred: int, tracked: int) -> None:
        """Wait for this many inferred and predicted frames; all are on `tracks`, inferred ones unchanged."""
        self.robot.wait(lambda: len(self.inferred) >= inferred, f"{inferred} answers, {len(self.inferred)}")
        self.robot.wait(lambda: len(self.tracked) >= tracked, f"{tracked} tracked, {len(self.tracked)}")
        self.robot.turns(0.2)
        assert (len(self.inferred), len(self.tracked)) == (inferred, tracked)
        shown = {stamp_of(one): one for one in self.tracks}
        assert len(shown) == len(self.tracks), "no frame twice"
        assert all(shown.get(stamp_of(one), one) == one for one in self.inferred)
        assert not self._complete or len(shown) == inferred + tracked

    def audit(self, on: bool) -> None:
        """Have every skipped frame inferred, or none."""
        rate = 1.0 if on else 0.0
        assert self.robot.set("gate", audit_rate=rate, audit_max_hz=1000.0).successful


def boxes_by_id(message: Detection2DArray) -> dict[str, np.ndarray]:
    """xyxy_px by id."""
    found = detections_from_message(message)
    named = {one.id: row for one, row in zip(message.detections, found.xyxy_px, strict=True)}
    assert len(named) == len(message.detections), "an id stands for one object"
    return named
