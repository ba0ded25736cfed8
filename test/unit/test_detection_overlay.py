"""Boxes drawn into an image: solid if inferred, dashed if predicted, with the id of the track."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vision.core.detection_overlay import DASH_PX, caption, dashes, draw_detections
from edge_vision.core.detections import Detections

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
