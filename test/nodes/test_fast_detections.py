"""The bytes that the detector publishes, and what is read of bytes, against the middleware's messages."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image
from vision_msgs.msg import Detection2DArray

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.nodes.interface.cdr import best_encoder, encode_detections
from edge_vision.nodes.interface.detection_messages import detections_message
from edge_vision.nodes.observers.cdr_reader import ImageView, read_boxes, read_image

NUMBERS = st.floats(-1e4, 1e4, width=32)


@st.composite
def results(draw: st.DrawFn) -> Detections:
    count = draw(st.integers(0, 6))
    rows = draw(st.lists(st.tuples(*[NUMBERS] * 4), min_size=count, max_size=count))
    scores = draw(st.lists(st.floats(0, 1, width=32), min_size=count, max_size=count))
    class_ids = draw(st.lists(st.integers(0, 100000), min_size=count, max_size=count))
    return Detections(
        np.array(rows, np.float32).reshape(count, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int32),
    )


@settings(deadline=None, max_examples=150)
@given(
    results(),
    st.one_of(st.none(), st.lists(st.integers(0, 2**62), min_size=6, max_size=6)),
    st.integers(0, 2**31 * 10**9 - 1),
    st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=9),
)
def test_the_bytes_are_read_as_the_message(
    found: Detections, numbers: list[int] | None, stamp_ns: int, frame_id: str
) -> None:
    frame = Frame(np.zeros((1, 1, 3), np.uint8), stamp_ns, frame_id)
    ids = None if numbers is None else np.array(numbers[: len(found)], np.int64)
    message = detections_message(found, frame, ids)
    raw = encode_detections(found, frame, ids)
    assert deserialize_message(raw, Detection2DArray) == message
    for written in (raw, serialize_message(message)):
        assert list(read_boxes(written)) == [fields_of(one) for one in message.detections]
    assert [one.id for one in message.detections] == [
        "" if ids is None else str(ids[i]) for i in range(len(found))
    ]


def fields_of(one: Any) -> tuple[Any, ...]:
    """Of a Detection2D, as `read_boxes` yields them."""
    box, centre = one.bbox, one.bbox.center.position
    results = [(it.hypothesis.class_id, it.hypothesis.score) for it in one.results]
    return results, (centre.x, centre.y, box.center.theta, box.size_x, box.size_y), one.id


def test_boxes_that_are_cut_short_are_an_error() -> None:
    found = Detections(np.ones((2, 4), np.float32), np.ones(2, np.float32), np.zeros(2, np.int32))
    raw = encode_detections(found, Frame(np.zeros((1, 1, 3), np.uint8), 0, "camera"))
    assert len(list(read_boxes(raw))) == 2
    for size in range(len(raw)):
        with pytest.raises(ValueError, match="expected"):
            list(read_boxes(raw[:size]))


@settings(deadline=None, max_examples=50)
@given(
    st.integers(0, 2**31 - 1),
    st.integers(0, 2**32 - 1),
    st.text(st.characters(blacklist_characters="\0", codec="utf-8"), max_size=9),
    st.sampled_from(["bgr8", "mono8", "16UC1"]),
    st.binary(max_size=40),
)
def test_an_image_is_read_as_the_message(
    sec: int, nanosec: int, frame_id: str, encoding: str, data: bytes
) -> None:
    message = Image(height=3, width=7, encoding=encoding, is_bigendian=1, step=21, data=array("B", data))
    message.header.frame_id, message.header.stamp.sec, message.header.stamp.nanosec = frame_id, sec, nanosec
    raw = serialize_message(message)
    view = read_image(raw)
    # cv_bridge, which reads the other encodings, needs a message.
    assert isinstance(view, Image if encoding == "16UC1" else ImageView)
    for name in ("header", "height", "width", "encoding", "is_bigendian", "step"):
        assert getattr(view, name) == getattr(message, name)
    assert bytes(view.data) == data
    # Big endian, which rclpy reads.
    assert isinstance(read_image(b"\0\0\0\0" + bytes(64)), Image)


def test_the_fast_way_is_taken_with_this_middleware() -> None:
    assert best_encoder() is encode_detections


def test_another_layout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A middleware that does not read the bytes as we mean them gets messages."""
    monkeypatch.setattr("edge_vision.nodes.interface.cdr._text", lambda text: b"\2\0\0\0x\0")
    assert best_encoder() is detections_message
