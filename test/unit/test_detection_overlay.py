"""Boxes drawn into an image: solid if inferred, dashed if predicted, with the id of the track."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vision.core.detection_overlay import DASH_PX, caption, dashes, draw_detections, shape_lines
from edge_vision.core.detections import Detections
from edge_vision.core.object_shapes import KeyPoints, ObjectShapes, OrientedBoxes

BOX = np.array([20.4, 40, 100, 90], np.float32)


def drawn(predicted: bool, box: np.ndarray = BOX) -> np.ndarray:
    found = Detections(box[None], np.array([0.5], np.float32), np.array([0], np.int32))
    return draw_detections(np.zeros((120, 160, 3), np.uint8), found, ["dog"], np.array([7]), predicted)


def test_an_inferred_box_is_solid_and_a_predicted_one_dashed():
    solid, dashed = (drawn(predicted)[90, 20:101].any(axis=1) for predicted in (False, True))
    assert solid.all()
    assert 0.4 < dashed.mean() < 0.9 and dashed[: DASH_PX // 2].all()


def test_dashes_lie_on_the_sides_of_the_box():
    ends = dashes(BOX).reshape(-1, 2)
    on_x, on_y = np.isin(ends[:, 0], (20, 100)), np.isin(ends[:, 1], (40, 90))
    assert (on_x | on_y).all() and ends.min(axis=0).tolist() == [20, 40]
    assert ends.max(axis=0).tolist() == [100, 90]


@pytest.mark.parametrize("box", [[5, 5, 5, 5], [-50, -50, 500, 500], [-1, 2, 0, 3]])
def test_boxes_without_area_or_beyond_the_image_are_no_error(box):
    for predicted in (False, True):
        assert drawn(predicted, np.array(box, np.float32)).any()


def test_the_caption_has_the_id_of_the_track():
    assert (caption("dog", 0.5), caption("dog", 0.5, "7")) == ("dog 0.50", "dog #7 0.50")


def of_one(shapes: ObjectShapes) -> Detections:
    return Detections(BOX[None], np.array([0.5], np.float32), np.array([0], np.int32), shapes)


def test_key_points_are_drawn_if_they_are_likely_and_joined_as_in_coco():
    """A line joins two points that are both shown: the left wrist (9) is not."""
    points = np.stack([np.arange(17) * 5.0, np.arange(17) * 3.0, np.ones(17)], axis=1)
    points[9, 2] = 0.2
    lines = list(shape_lines(of_one(KeyPoints(points[None].astype(np.float32)))))
    closed, open_lines = [[one[1] for one in lines if one[2] == kind] for kind in (True, False)]
    assert len(closed) == 16 and len(open_lines) == 18
    assert [one[0] for one in lines] == [0] * 34
    elbow_to_wrist = points[[7, 9], :2]
    assert not any(np.array_equal(line, elbow_to_wrist) for line in open_lines)
    assert any(np.array_equal(line, points[[8, 10], :2]) for line in open_lines)
    other = KeyPoints(points[None, :5].astype(np.float32))
    assert [one[2] for one in shape_lines(of_one(other))] == [True] * 5


def test_an_oriented_box_is_drawn_by_its_corners():
    ((at, corners, closed),) = shape_lines(of_one(OrientedBoxes(np.array([[50, 40, 20, 10, np.pi / 2]]))))
    assert (at, closed) == (0, True)
    np.testing.assert_allclose(corners, [[55, 30], [55, 50], [45, 50], [45, 30]], atol=1e-6)


def test_shapes_move_with_a_crop():
    points = KeyPoints(np.zeros((2, 3, 3), np.float32)).shifted(10, 20)
    assert points.rows[1, 2].tolist() == [10, 20, 0]
    boxes = OrientedBoxes(np.ones((1, 5), np.float32)).shifted(10, 20)
    assert boxes.rows[0].tolist() == [11, 21, 1, 1, 1]
    with pytest.raises(ValueError, match="expected shapes of 1 objects, got 2"):
        of_one(points)
