"""Masks and key points for the live page, read from the messages of any program."""

from __future__ import annotations

import struct

import cv2
import numpy as np
import pytest
from rclpy.serialization import serialize_message
from sensor_msgs.msg import PointCloud2, PointField

from edge_vision.core.frame import Frame
from edge_vision.nodes.interface.shape_messages import keypoints_message, polygon_message
from edge_vision.nodes.observers.shape_feed import MAX_OBJECTS, MAX_VERTICES, outline_of, skeletons_of

CIRCLE = cv2.ellipse2Poly((300, 200), (90, 50), 0, 0, 360, 1)[:-1]


def of(frame_id: str = "camera") -> Frame:
    return Frame(np.zeros((1, 1, 3), np.uint8), 1_700_000_000_123_456_789, frame_id)


@pytest.mark.parametrize("frame_id", ["", "c", "ca", "cam", "front"])
@pytest.mark.parametrize("count", [3, 4, 6])
def test_an_outline_is_read_at_every_alignment(frame_id: str, count: int) -> None:
    corners = np.array([(10, 10), (90, 10), (90, 90), (50, 60), (10, 90), (5, 40)])[:count]
    message = serialize_message(polygon_message(corners, 7, of(frame_id)))
    ((index, *points),) = outline_of(message)
    assert index == 6 and sorted(zip(points[::2], points[1::2], strict=True)) == sorted(
        map(tuple, corners.tolist())
    )


def test_an_outline_is_simplified_to_a_pixel() -> None:
    ((_, *points),) = outline_of(serialize_message(polygon_message(CIRCLE, 1, of())))
    outline = np.array(points, np.float32).reshape(-1, 2)
    assert len(outline) < len(CIRCLE) / 5
    assert (
        max(abs(cv2.pointPolygonTest(outline, point, True)) for point in CIRCLE.astype(float).tolist()) < 2.0
    )


def test_the_vertices_of_an_outline_are_bounded() -> None:
    # Simplified whole, this one takes quadratic time: each vertex is far from the line of its neighbours.
    at = np.arange(80_000)
    zigzag = np.stack((at, at % 3 * 500), axis=1)
    ((_, *points),) = outline_of(serialize_message(polygon_message(zigzag, 1, of())))
    assert 2 < len(points) // 2 <= MAX_VERTICES and max(points[::2]) > 79_000


@pytest.mark.parametrize("number", [0, -1, MAX_OBJECTS + 1, 1 << 62])
def test_the_number_of_no_object_is_refused(number: int) -> None:
    with pytest.raises(ValueError, match="number of an object"):
        outline_of(serialize_message(polygon_message(CIRCLE, number, of())))


@pytest.mark.parametrize(
    "vertices", [np.zeros((0, 2)), np.array([[0, 0], [np.nan, 1], [2, 2]]), CIRCLE * 1e30]
)
def test_vertices_that_cannot_be_drawn_are_refused(vertices: np.ndarray) -> None:
    with pytest.raises(ValueError, match="finite vertices"):
        outline_of(serialize_message(polygon_message(vertices, 1, of())))


def test_a_damaged_message_is_an_error_of_its_own() -> None:
    message = serialize_message(polygon_message(CIRCLE[:20], 1, of()))
    for size in range(12, len(message) - 8):
        with pytest.raises(ValueError):
            outline_of(message[:size])
    for at in (12, 24):  # Lengths of the frame_id and of the list.
        with pytest.raises(ValueError):
            outline_of(message[:at] + b"\xff" * 4 + message[at + 4 :])


def test_visible_key_points_and_the_bones_between_them_are_read() -> None:
    points = np.zeros((2, 17, 3), np.float32)
    points[0, [5, 6, 0]] = (40.4, 80, 0.9), (160, 80.6, 0.3), (100, 60, 1)
    points[0, 9] = 60, 60, 0.29
    points[1, [11, 12]] = (np.nan, 5, 1), (7, 8, 1)
    points[1, 13] = np.inf, 1e30, np.nan
    lines = skeletons_of(serialize_message(keypoints_message(points, of())))
    assert sorted(lines) == sorted([[0, 40, 80], [0, 160, 81], [0, 100, 60], [0, 40, 80, 160, 81], [1, 7, 8]])
    five = skeletons_of(serialize_message(keypoints_message(np.ones((1, 5, 3), np.float32), of())))
    assert five == [[0, 1, 1]] * 5


def test_clouds_of_other_layouts_are_read_or_refused() -> None:
    cloud = keypoints_message(np.full((1, 1, 3), 7, np.float32), of())
    wide = PointCloud2(height=1, width=2, point_step=20, is_bigendian=True)
    wide.fields = [
        PointField(name=name, offset=offset, datatype=PointField.FLOAT32, count=1)
        for name, offset in (("score", 0), ("v", 8), ("u", 16))
    ]
    wide.data = struct.pack(">5f", 0.5, 0, 2, 0, 1) + struct.pack(">5f", 0.5, 0, 4, 0, 3)
    assert skeletons_of(serialize_message(wide)) == [[0, 1, 2], [0, 3, 4]]
    outside = [
        PointField(name=name, offset=(1 << 31) - 1, datatype=PointField.FLOAT32)
        for name in ("u", "v", "score")
    ]
    wrong = [
        {"fields": outside},
        {"data": b""},
        {"height": 2},
        {"height": (1 << 32) - 1, "width": (1 << 32) - 1},
        {"point_step": 0},
        {"point_step": 8},
        {"fields": []},
        {"fields": [PointField(name=name, datatype=PointField.UINT8) for name in ("u", "v", "score")]},
    ]
    for change in wrong:
        damaged = keypoints_message(np.full((1, 1, 3), 7, np.float32), of())
        for name, value in change.items():
            setattr(damaged, name, value)
        with pytest.raises((ValueError, LookupError)):
            skeletons_of(serialize_message(damaged))
    assert skeletons_of(serialize_message(cloud)) == [[0, 7, 7]]
