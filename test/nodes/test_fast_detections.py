"""The bytes that the detector publishes against the message that the middleware writes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rclpy.serialization import deserialize_message
from vision_msgs.msg import Detection2DArray

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.nodes.interface.cdr import best_encoder, encode_detections
from edge_vision.nodes.interface.detection_messages import detections_message

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
    assert deserialize_message(encode_detections(found, frame, ids), Detection2DArray) == message
    assert [one.id for one in message.detections] == [
        "" if ids is None else str(ids[i]) for i in range(len(found))
    ]


def test_the_fast_way_is_taken_with_this_middleware() -> None:
    assert best_encoder() is encode_detections


def test_another_layout_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A middleware that does not read the bytes as we mean them gets messages."""
    monkeypatch.setattr("edge_vision.nodes.interface.cdr._text", lambda text: b"\2\0\0\0x\0")
    assert best_encoder() is detections_message
