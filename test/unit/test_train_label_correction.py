"""Labels as targets: which of the teacher's outputs change, on real bundles and on cropped pictures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import SSD, bundle_or_skip, video_frame

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import iou_matrix, true_positives
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.detector import to_source_pixels
from edge_vision.optimize.quantization import graph_session
from edge_vision.train.data.augmentation import augmented
from edge_vision.train.data.label_correction import LOWERED_SCORE, RAISED_SCORE, LabelCorrection
from edge_vision.train.data.labels import visible_parts


class Teacher:
    """A bundle's outputs and detections on a picture."""

    def __init__(self, name: str) -> None:
        self.bundle = bundle_or_skip(name)
        model = graph_session.folded(self.bundle.verify(self.bundle.manifest.graphs[0]))
        self.correction = LabelCorrection(self.bundle, model)
        self.head = self.correction._head
        self._session = graph_session.session(model)
        self._preprocessor = Preprocessor(self.bundle.manifest.input)

    def run(self, image: np.ndarray):
        """Outputs by name, and the transform."""
        tensor, transform = self._preprocessor.prepare(Frame(image, 0, ""))
        names = [one.name for one in self._session.get_outputs()]
        found = self._session.run(names, {self.bundle.manifest.input.name: tensor})
        return dict(zip(names, found, strict=True)), transform

    def decoded(self, outputs, transform) -> Detections:
        found = to_source_pixels(self.head.decode(outputs, self.bundle.manifest.thresholds), transform)
        return replace(found, scores=np.ones(len(found), np.float32))

    def scores(self, outputs) -> np.ndarray:
        return self.correction._scores(outputs)

    def boxes(self, outputs, transform) -> np.ndarray:
        return transform.to_source(self.correction._anchor_boxes(outputs))


@pytest.fixture(scope="module", params=[SSD, "nanodet_320", "nanodet"])
def teacher(request: pytest.FixtureRequest) -> Teacher:
    return Teacher(request.param)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return video_frame("vtest.avi", 200).image


def without(labels: Detections, number: int) -> Detections:
    return labels.select(np.arange(len(labels)) != number)


def test_the_teachers_own_boxes_change_nothing(teacher: Teacher, image: np.ndarray) -> None:
    outputs, transform = teacher.run(image)
    labels = teacher.decoded(outputs, transform)
    assert len(labels) >= 4
    found = teacher.correction.corrected(outputs, labels, transform)
    assert (found.raised, found.lowered) == (0, 0)
    for name, values in outputs.items():
        np.testing.assert_array_equal(found.outputs[name], values)


def test_a_removed_label_lowers_the_anchors_of_its_box_alone(teacher: Teacher, image: np.ndarray) -> None:
    outputs, transform = teacher.run(image)
    before = {name: values.copy() for name, values in outputs.items()}
    own = teacher.decoded(outputs, transform)
    boxes, scores = teacher.boxes(outputs, transform), teacher.scores(outputs)
    for number in range(len(own)):
        labels = without(own, number)
        found = teacher.correction.corrected(outputs, labels, transform)
        box, class_id = own.xyxy_px[number], own.class_ids[number]
        of_class = labels.xyxy_px[labels.class_ids == class_id]
        if iou_matrix(box[None], of_class).max(initial=0.0) >= 0.5:
            assert found.lowered == 0, "another label is the same object"
            continue
        expected = iou_matrix(boxes, box[None])[:, 0] >= 0.5
        expected &= iou_matrix(boxes, of_class).max(axis=1, initial=0.0) < 0.5
        expected &= scores[:, class_id] > LOWERED_SCORE
        changed = teacher.scores(found.outputs) != scores
        assert np.array_equal(changed[:, class_id], expected) and expected.any()
        assert changed.sum() == expected.sum(), "no other class"
        np.testing.assert_allclose(teacher.scores(found.outputs)[changed], LOWERED_SCORE, rtol=1e-4)
        np.testing.assert_array_equal(teacher.boxes(found.outputs, transform), boxes)
        assert (found.raised, found.lowered) == (0, 1)
        after = teacher.decoded(found.outputs, transform)
        assert true_positives(after, labels) == len(labels) == len(after)
    for name, values in outputs.items():
        np.testing.assert_array_equal(values, before[name], err_msg="the teacher's own outputs")


def test_an_added_label_is_found_with_its_own_box(teacher: Teacher, image: np.ndarray) -> None:
    """Labels of a blank picture, on which the teacher finds nothing."""
    blank = np.full_like(image, 127)
    outputs, transform = teacher.run(blank)
    scores = teacher.scores(outputs)
    assert len(teacher.decoded(outputs, transform)) == 0
    reached = 0
    for left, top, width, height in ((60, 200, 150, 260), (300, 100, 220, 210), (500, 300, 120, 240)):
        labels = Detections(
            np.array([[left, top, left + width, top + height]], np.float32),
            np.ones(1, np.float32),
            np.zeros(1, np.int32),
        )
        found = teacher.correction.corrected(outputs, labels, transform)
        changed = teacher.scores(found.outputs) != scores
        assert found.lowered == 0 and changed.sum() <= 3 and changed[:, 1:].sum() == 0
        assert changed.any() == bool(found.raised)
        after = teacher.decoded(found.outputs, transform)
        assert len(after) == found.raised
        np.testing.assert_allclose(teacher.scores(found.outputs)[changed], RAISED_SCORE, rtol=1e-4)
        # A distance of more than seven cells cannot be written.
        assert true_positives(after, labels) == found.raised
        reached += found.raised
    assert reached >= 2


def test_a_label_of_another_class_moves_the_score(teacher: Teacher, image: np.ndarray) -> None:
    outputs, transform = teacher.run(image)
    own = teacher.decoded(outputs, transform)
    other = (own.class_ids[0] + 1) % len(teacher.bundle.labels)
    labels = replace(own, class_ids=np.where(np.arange(len(own)) == 0, other, own.class_ids))
    found = teacher.correction.corrected(outputs, labels, transform)
    assert (found.raised, found.lowered) == (1, 1)
    assert true_positives(teacher.decoded(found.outputs, transform), labels) == len(labels)


def test_what_is_mostly_out_of_the_picture_is_neutral(teacher: Teacher, image: np.ndarray) -> None:
    outputs, transform = teacher.run(image)
    own = teacher.decoded(outputs, transform)
    shares = np.full(len(own), 0.4, np.float32)
    found = teacher.correction.corrected(outputs, replace(own, scores=shares), transform)
    assert (found.raised, found.lowered) == (0, 0)
    empty, nothing = np.full_like(image, 127), replace(own, scores=shares)
    outputs, transform = teacher.run(empty)
    assert teacher.correction.corrected(outputs, nothing, transform).raised == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_boxes_move_with_the_pixels(seed: int) -> None:
    """Each object is a rectangle of its own colour, of which the box is read from the pixels."""
    rng = np.random.default_rng(seed)
    image, boxes = np.zeros((90, 120, 3), np.uint8), []
    for number in range(3):
        left, top = int(rng.integers(40 * number, 40 * number + 20)), int(rng.integers(0, 50))
        right, bottom = left + int(rng.integers(8, 20)), top + int(rng.integers(8, 40))
        image[top:bottom, left:right, number] = 255
        boxes.append([left, top, right, bottom])
    given_boxes = Detections(
        np.array(boxes, np.float32), np.ones(3, np.float32), np.arange(3, dtype=np.int32)
    )
    changed, found = augmented(image, "detect", rng, given_boxes)
    assert found is not None
    by_class = dict(zip(found.class_ids.tolist(), zip(found.xyxy_px, found.scores, strict=True), strict=True))
    for number, whole in enumerate(boxes):
        # Blurred by at most 1.5 px, darkened to 0.75 - 20 at least: half of the contrast is the edge.
        channel = changed[..., number].astype(float)
        rows, columns = np.nonzero(channel > (channel.min() + channel.max()) / 2)
        if number not in by_class:
            assert channel.max() - channel.min() < 150
            continue
        box, share = by_class[number]
        sides = (box[2] - box[0]) * (box[3] - box[1])
        assert share == pytest.approx(sides / ((whole[2] - whole[0]) * (whole[3] - whole[1])), rel=1e-4)
        if min(box[2] - box[0], box[3] - box[1]) >= 6:
            edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            np.testing.assert_allclose(edges, box, atol=1.01)


def test_labels_of_a_picture_fit_its_crops_and_mirror_images(teacher: Teacher, image: np.ndarray) -> None:
    labels = teacher.decoded(*teacher.run(image))
    rng, corrections, expected = np.random.default_rng(1), 0, 0
    for _ in range(6):
        changed, inside = augmented(image, "detect", rng, labels)
        assert inside is not None
        objects = inside.select(inside.scores >= 0.5)
        outputs, transform = teacher.run(changed)
        found = teacher.correction.corrected(outputs, inside, transform)
        before, after = (teacher.decoded(one, transform) for one in (outputs, found.outputs))
        assert true_positives(after, objects) >= true_positives(before, objects)
        corrections, expected = corrections + found.raised, expected + len(objects)
        # On the same picture its own boxes are right.
        same = teacher.correction.corrected(outputs, before, transform)
        assert (same.raised, same.lowered) == (0, 0)
    assert expected >= 20 and corrections < 0.25 * expected, "the teacher finds most of them again"


def test_parts_of_boxes() -> None:
    boxes = Detections(
        np.array([[0, 0, 10, 10], [8, 8, 28, 18], [40, 40, 50, 50]], np.float32),
        np.ones(3, np.float32),
        np.arange(3, dtype=np.int32),
    )
    found = visible_parts(boxes, np.array([0, 0, 18, 13], np.float32))
    np.testing.assert_allclose(found.xyxy_px, [[0, 0, 10, 10], [8, 8, 18, 13]])
    np.testing.assert_allclose(found.scores, [1.0, 0.25])
    assert found.class_ids.tolist() == [0, 1]
