"""Reviewed pictures in a training: which are used, in which pixels, and the accuracy on their labels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from dataset_cases import NOON, Clock, collect, picture
from model_cases import bundle_or_skip, video_frame

from edge_vision.core.frame import Frame
from edge_vision.dataset.collector import CandidateFrame, Collector, CollectorConfig, ProposingModel
from edge_vision.dataset.picture import ACCEPTED, REJECTED, LabelledBox
from edge_vision.dataset.selection import RANDOM
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.quantization import graph_session
from edge_vision.train.data.labels import LabelledImages, collected_digest, teachable
from edge_vision.train.data.time_split import MAX_SIDE_PX, split

MODEL = "nanodet_320"


@pytest.fixture(scope="module")
def teacher():
    bundle = bundle_or_skip(MODEL)
    return bundle, graph_session.folded(bundle.verify(bundle.manifest.graphs[0]))


def test_a_folder_of_collected_pictures_is_a_clip_without_rejected_ones(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 40)
    names = folder.names()
    folder.review(names[0], 0, REJECTED, None, NOON)
    folder.review(names[1], 0, ACCEPTED, [LabelledBox("dog", (1, 2, 30, 40))], NOON)
    folder.review(names[-1], 0, ACCEPTED, [], NOON)
    found = split([str(folder.folder)], [], 40, 20)
    assert len(found.train) == 25 and len(found.judge) == 12
    assert [one for one in found.train_labels if one is not None] == [(LabelledBox("dog", (1, 2, 30, 40)),)]
    assert found.train_labels.index((LabelledBox("dog", (1, 2, 30, 40)),)) == 0, "of its own image"
    assert [one for one in found.judge_labels if one is not None] == [()]
    first = cv2.imread(str(folder.image_path(names[1])))
    assert np.array_equal(found.train[0], first)


def test_labels_follow_a_picture_that_is_reduced(tmp_path: Path) -> None:
    collector = Collector(tmp_path / "new", CollectorConfig(daily_per_class=100), Clock())
    for seed in range(30):
        image = picture(seed, 2 * MAX_SIDE_PX, MAX_SIDE_PX)
        assert collector.keep(CandidateFrame(Frame(image, seed, "c"), RANDOM, ProposingModel()))
    collector.close()
    folder = collector.folder
    for name in folder.names():
        folder.review(name, 0, ACCEPTED, [LabelledBox("dog", (100, 200, 30, 40))], NOON)
    found = split([str(folder.folder)], [], 30, 10)
    assert found.train[0].shape[:2] == (MAX_SIDE_PX // 2, MAX_SIDE_PX)
    assert {one for labels in found.train_labels for one in labels} == {LabelledBox("dog", (50, 100, 15, 20))}


def test_a_damaged_picture_stops_the_training_with_its_name(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 20)
    folder.image_path(folder.names()[3]).unlink()
    with pytest.raises(OptimizeError, match=f"expected the picture of {folder.names()[3]}"):
        split([str(folder.folder)], [], 20, 10)


def test_a_folder_without_pictures_is_one_clear_error(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 0)
    with pytest.raises(OptimizeError, match="at least 8 different images to train, got 0"):
        split([str(folder.folder)], [], 20, 10)


def test_each_review_makes_a_training_start_again(tmp_path: Path) -> None:
    folder = collect(tmp_path / "new", 2)
    digests = [collected_digest(folder.folder)]
    for revision, state in enumerate((ACCEPTED, REJECTED)):
        folder.review(folder.names()[0], revision, state, None, NOON)
        digests.append(collected_digest(folder.folder))
    assert len(set(digests)) == 3 and digests[-1] == collected_digest(folder.folder)


def labels_of(found, labels) -> tuple[LabelledBox, ...]:
    rows = zip(found.xyxy_px.tolist(), found.class_ids.tolist(), strict=True)
    return tuple(LabelledBox(labels[i], (b[0], b[1], b[2] - b[0], b[3] - b[1])) for b, i in rows)


def test_accuracy_is_that_of_the_detections_against_the_labels(teacher) -> None:
    bundle, model = teacher
    images = [video_frame("vtest.avi", at).image for at in (0, 100, 200)]
    threshold = bundle.manifest.thresholds.score_threshold
    found = LabelledImages(bundle, images, [()] * 3).detect(model, threshold)
    assert all(map(len, found))
    own = [labels_of(one, bundle.labels) for one in found]
    assert LabelledImages(bundle, images, own).map50(model) > 0.95
    assert LabelledImages(bundle, images, own).wrong(model) == []
    moved = [tuple(LabelledBox(b.label, (b.bbox[0] + 200, *b.bbox[1:])) for b in one) for one in own]
    assert LabelledImages(bundle, images, moved).map50(model) < 0.3
    # Without a label nothing is known; unknown classes are no labels.
    odd = [own[0], moved[1], None]
    assert teachable(bundle, model, images, odd) == [0, 2]
    assert len(LabelledImages(bundle, images[:1], [(LabelledBox("unicorn", (1, 2, 3, 4)),)]).expected[0]) == 0


def test_a_picture_where_nothing_is_and_nothing_is_found_is_right(teacher) -> None:
    bundle, model = teacher
    black = np.zeros((240, 320, 3), np.uint8)
    assert LabelledImages(bundle, [black], [()]).wrong(model) == []
