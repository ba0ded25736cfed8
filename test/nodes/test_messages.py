"""Messages and the core's types, there and back."""

from __future__ import annotations

import json

import numpy as np
import pytest
from ros_cases import DiagnosticArray

from edge_vision.core.frame import Frame
from edge_vision.core.frame_event import FrameEvent
from edge_vision.core.stamp_check import stamp_to_ns
from edge_vision.nodes.interface.detection_messages import regions_message
from edge_vision.nodes.interface.frame_event_messages import frame_event_from_message, frame_event_message
from edge_vision.nodes.transport.intra_process import IntraProcess

REGIONS = np.array([[1.5, 2.25, 30.0, 40.125], [0, 0, 7, 9]], np.float32)
MOTION = np.array([[1.0 + 1e-13, -0.25, 3.3], [np.pi, 0.1, -1e-9], [1e-7, -2e-8, 1.0]])
STAMP_NS = 1_700_000_000_123_456_789


def there_and_back(frame_event: FrameEvent) -> FrameEvent:
    from rclpy.serialization import deserialize_message, serialize_message

    return frame_event_from_message(
        deserialize_message(serialize_message(frame_event_message(frame_event)), DiagnosticArray)
    )


@pytest.mark.parametrize("motion", [MOTION, None], ids=["known", "unknown"])
@pytest.mark.parametrize("fate", ["", "gated"])
def test_a_tick_comes_back_bit_for_bit(fate, motion):
    sent = FrameEvent(STAMP_NS, "kamera ä", "gate", fate, "still", REGIONS, 77, motion)
    found = there_and_back(sent)
    assert found[:5] == sent[:5]
    assert found.seq == 0, "which is of one process"
    assert np.array_equal(found.regions, REGIONS) and found.regions.dtype == np.float32
    if motion is None:
        assert found.camera_motion is None
    else:
        assert found.camera_motion.shape == (3, 3) and found.camera_motion.dtype == np.float64
        assert np.array_equal(found.camera_motion, MOTION)


def test_an_unknown_motion_is_left_out_of_the_message():
    keys = [
        pair.key
        for pair in frame_event_message(FrameEvent(STAMP_NS, "", "gate", "", "still")).status[0].values
    ]
    assert keys == ["fate", "regions"]


@pytest.mark.parametrize(
    "text", ["[1, 2, 3]", "[]", "null", "{}", '"far"', "[[1, 2], [3]]", json.dumps([float("nan")] * 9), "[1"]
)
def test_an_invalid_motion_is_refused(text):
    message = frame_event_message(FrameEvent(STAMP_NS, "", "gate", "", "still", camera_motion=MOTION))
    message.status[0].values[2].value = text
    with pytest.raises((ValueError, TypeError)):
        frame_event_from_message(message)


@pytest.mark.parametrize("regions", [REGIONS, REGIONS[:0]], ids=["two", "none"])
def test_regions_as_boxes_under_the_frames_header(regions):
    frame = Frame(np.zeros((4, 4, 3), np.uint8), STAMP_NS, "cam")
    message = regions_message(regions, frame)
    assert stamp_to_ns(message.header.stamp) == STAMP_NS and message.header.frame_id == "cam"
    found = [
        (box.center.position.x, box.center.position.y, box.size_x, box.size_y, box.center.theta)
        for box in message.boxes
    ]
    assert found == ([(15.75, 21.1875, 28.5, 37.875, 0.0), (3.5, 4.5, 7.0, 9.0, 0.0)] if len(regions) else [])


def test_a_notification_reaches_all_subscribers_of_its_topic_only():
    hub, heard = IntraProcess(), []
    hub.notify("/found", 1)
    hub.subscribe("/found", lambda *what: heard.append(("a", *what)))
    hub.subscribe("/found", lambda *what: heard.append(("b", *what)))
    hub.subscribe("/other", lambda *what: heard.append(("c", *what)))
    hub.notify("/found", 2, "two")
    assert heard == [("a", 2, "two"), ("b", 2, "two")]
    hub.notify("/nobody")
    assert len(heard) == 2
