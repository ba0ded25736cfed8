"""AP, recall and precision against labels: cases known by hand, and pycocotools called directly."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import SSD, bundle_or_skip, clip_or_skip

from edge_vision.core.detections import Detections
from edge_vision.evaluate.accuracy.labels import LabelledImage, LabelSet
from edge_vision.evaluate.accuracy.scores import class_numbers, in_classes_of_labels, scores_of
from edge_vision.evaluate.command import main

BIG, FAR, CROWD = (0, 0, 100, 100), (200, 0, 240, 40), (300, 0, 400, 100)


def image(*rows: tuple) -> LabelledImage:
    """rows: (box, class, ignored)."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    ids = np.array([row[1] for row in rows], np.int32)
    ignored = np.array([row[2] for row in rows], bool)
    return LabelledImage(
        "a", Path("a"), None, None, boxes, ids, ignored, areas.astype(float), np.zeros(len(rows), int)
    )


def label_set(*images: LabelledImage) -> LabelSet:
    return LabelSet(Path("labels.json"), ("person", "car"), images)


def found(*rows: tuple) -> Detections:
    """rows: (box, score, class), by descending score."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    scores = np.array([row[1] for row in rows], np.float32)
    return Detections(boxes, scores, np.array([row[2] for row in rows], np.int32))


def test_all_found() -> None:
    labels = label_set(image((BIG, 0, False), (FAR, 1, False)))
    scores = scores_of([found((BIG, 0.9, 0), (FAR, 0.8, 1))], labels, (0, 1), 0.5)
    assert (scores["boxes"], scores["ap"], scores["ap50"], scores["ar"]) == (2, 1.0, 1.0, 1.0)
    assert (scores["recall"], scores["precision"]) == (1.0, 1.0)
    assert scores["sizes"]["large"]["boxes"] == 1 and scores["sizes"]["medium"]["boxes"] == 1
    assert scores["sizes"]["small"]["ap"] is None and scores["sizes"]["small"]["recall"] is None


def test_recall_and_precision_are_those_at_the_threshold() -> None:
    """Of four boxes above 0.5, two hit; the third object is found below the threshold only."""
    third = (0, 200, 100, 300)
    labels = label_set(image((BIG, 0, False), (FAR, 0, False), (third, 0, False)))
    boxes = found(
        (BIG, 0.9, 0),
        (FAR, 0.8, 0),
        ((500, 0, 520, 20), 0.7, 0),
        ((600, 0, 620, 20), 0.6, 0),
        (third, 0.3, 0),
    )
    scores = scores_of([boxes], labels, (0, 1), 0.5)
    assert scores["recall"] == pytest.approx(2 / 3, abs=1e-3) and scores["precision"] == 0.5
    assert scores["ar"] == 1.0 and 0.8 < scores["ap"] < 1.0
    assert list(scores["classes"]) == ["person"]


def test_boxes_in_ignored_regions_do_not_count() -> None:
    labels = label_set(image((BIG, 0, False), (CROWD, 0, True)))
    boxes = found((BIG, 0.9, 0), ((310, 10, 340, 60), 0.9, 0), ((350, 10, 380, 60), 0.8, 0))
    scores = scores_of([boxes], labels, (0, 1), 0.5)
    assert (scores["boxes"], scores["ap"], scores["recall"], scores["precision"]) == (1, 1.0, 1.0, 1.0)


def test_nothing_found() -> None:
    labels = label_set(image((BIG, 0, False), (FAR, 1, False)))
    scores = scores_of([Detections.empty()], labels, (0, 1), 0.5)
    assert (scores["ap"], scores["recall"], scores["precision"], scores["boxes"]) == (0.0, 0.0, None, 2)
    assert scores["classes"]["car"] == {
        "boxes": 1,
        "ap": 0,
        "ap50": 0,
        "ar": 0,
        "recall": 0,
        "precision": None,
    }


def test_a_class_that_the_model_lacks_does_not_count() -> None:
    labels = label_set(image((BIG, 0, False), (FAR, 1, False)))
    numbers = class_numbers(["tree", "Person"], labels)
    assert numbers == {1: 0}
    boxes = in_classes_of_labels(found((BIG, 0.9, 1), (FAR, 0.8, 0)), numbers)
    assert boxes.class_ids.tolist() == [0]
    scores = scores_of([boxes], labels, numbers.values(), 0.5)
    assert (scores["boxes"], scores["ap"], list(scores["classes"])) == (1, 1.0, ["person"])


def test_ap_is_that_of_pycocotools_on_random_boxes(tmp_path: Path) -> None:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    random = np.random.default_rng(5)
    images, results, annotations = [], [], []
    for number in range(12):
        n = int(random.integers(1, 6))
        corners = random.uniform(0, 200, (n, 2))
        boxes = np.concatenate([corners, corners + random.uniform(10, 120, (n, 2))], axis=1)
        rows = [(box, int(random.integers(2)), bool(random.random() < 0.2)) for box in boxes]
        images.append(image(*rows))
        near = [(box + random.normal(0, 6, 4), float(random.uniform(0.1, 1)), one) for box, one, _ in rows]
        results.append(found(*sorted(near, key=lambda row: -row[1])))
        annotations += [
            {
                "image_id": number,
                "category_id": one,
                "bbox": [*box[:2], *(box[2:] - box[:2])],
                "iscrowd": crowd,
            }
            for box, one, crowd in rows
        ]
    for i, one in enumerate(annotations, 1):
        one |= {"id": i, "area": float(one["bbox"][2] * one["bbox"][3]), "iscrowd": int(one["iscrowd"])}
    document = {"images": [{"id": i} for i in range(12)], "categories": [{"id": 0}, {"id": 1}]}
    (tmp_path / "gt.json").write_text(json.dumps({**document, "annotations": annotations}, default=float))
    truth = COCO(str(tmp_path / "gt.json"))
    listed = [
        {
            "image_id": i,
            "category_id": int(c),
            "score": float(s),
            "bbox": [*map(float, [*b[:2], *(b[2:] - b[:2])])],
        }
        for i, one in enumerate(results)
        for b, s, c in zip(one.xyxy_px, one.scores, one.class_ids, strict=True)
    ]
    theirs = COCOeval(truth, truth.loadRes(listed), "bbox")
    theirs.evaluate()
    theirs.accumulate()
    theirs.summarize()
    ours = scores_of(results, label_set(*images), (0, 1), 0.5)
    values = [ours["ap"], ours["ap50"], *(ours["sizes"][name]["ap"] for name in ("small", "medium", "large"))]
    expected = [theirs.stats[i] for i in (0, 1, 3, 4, 5)]
    assert [-1 if value is None else value for value in values] == pytest.approx(expected, abs=2e-4)
    assert ours["ar"] == pytest.approx(theirs.stats[8], abs=2e-4)


@pytest.mark.timeout(300)
def test_the_command_on_a_clip(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip_or_skip("carphone_pristine.mp4")
    bundle_or_skip(SSD)
    out = tmp_path / "accuracy.json"
    assert main(["accuracy", SSD, "--clips", "carphone_pristine", "--json", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "labels.json: 5 images, 5 objects" in shown and "person" in shown
    scores = json.loads(out.read_text())["models"][SSD]
    assert scores["boxes"] == 5 and scores["recall"] == 1.0 and scores["missing_classes"] == []


def test_the_command_on_own_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_or_skip(SSD)
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((48, 64, 3), 90, np.uint8))
    content = {
        "images": [{"id": 1, "file_name": "grey.png"}],
        "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "moon"}],
        "annotations": [{"id": i, "image_id": 1, "category_id": i, "bbox": [1, 1, 30, 30]} for i in (1, 2)],
    }
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert main(["accuracy", SSD, "--labels", str(tmp_path / "labels.json")]) == 0
    assert "not in this model, not counted: moon" in capsys.readouterr().out
    assert main(["accuracy", SSD, "--labels", str(tmp_path / "none.json")]) == 2
    assert "No such file" in capsys.readouterr().err
    assert main(["accuracy", "no_such_model", "--labels", str(tmp_path / "labels.json")]) == 1


def test_the_labelled_frames_as_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip_or_skip("carphone_pristine.mp4")
    frames = tmp_path / "frames"
    assert main(["accuracy", "--clips", "carphone_pristine", "--export", str(frames)]) == 0
    names = sorted(file.name for file in frames.glob("*.png"))
    assert names == [f"carphone_pristine_{number:06d}.png" for number in (0, 37, 62, 87, 119)]
    assert main(["accuracy"]) == 2
    assert "expected a MODEL, or --export DIR" in capsys.readouterr().err
