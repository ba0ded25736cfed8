"""Ground truth of the optimizer: mAP of cases known by hand, and labels that do not fit."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from model_cases import SSD, bundle_or_skip, clip_or_skip, video_frame

from edge_vision.backends import open_session
from edge_vision.core.detections import Detections
from edge_vision.detect.detector import Detector
from edge_vision.optimize.command import main
from edge_vision.optimize.data import ground_truth
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.report.report_file import read_report

LABELS = ("bolt", "nut")
NAMES = ("a.png", "b.png")


def document(**others: object) -> dict:
    return {
        "images": [{"id": 7, "file_name": "sub/b.png"}, {"id": 5, "file_name": "a.png"}],
        "categories": [{"id": 40, "name": "Nut"}, {"id": 2, "name": "bolt"}, {"id": 3, "name": "unused"}],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 40, "bbox": [10, 10, 20, 30]},
            {"id": 2, "image_id": 7, "category_id": 2, "bbox": [0, 0, 50, 50]},
        ],
        **others,
    }


def written(tmp_path: Path, content: object) -> Path:
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(content))
    return file


def detections(*rows: tuple) -> Detections:
    values = np.array(rows, np.float32).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 4], values[:, 5].astype(np.int32))


def test_categories_match_by_name_and_images_by_file(tmp_path: Path) -> None:
    read = ground_truth.read_labels(written(tmp_path, document()), NAMES, LABELS)
    found = [(one["image_id"], one["category_id"], one["area"]) for one in read["annotations"]]
    assert found == [(0, 1, 600.0), (1, 0, 2500.0)]


NUT, BOLT = (10, 10, 30, 40, 0.9, 1), (0, 0, 50, 50, 0.8, 0)


@pytest.mark.parametrize(
    ("rows", "score"),
    [
        (([NUT], [BOLT]), {"map": 1.0, "map50": 1.0}),
        (([NUT], []), {"map": 0.5, "map50": 0.5}),
        (([], []), {"map": 0.0, "map50": 0.0}),
        # The right box of the wrong class: one class of two is lost.
        (([(10, 10, 30, 40, 0.9, 0)], [BOLT]), {"map": 0.25, "map50": 0.25}),
        # A box of IoU 2/3 counts at 0.5, 0.55, 0.6 and 0.65: four of ten.
        (([(10, 10, 30, 30, 0.9, 1)], [BOLT]), {"map": 0.7, "map50": 1.0}),
    ],
    ids=["all", "one class", "nothing", "wrong class", "loose box"],
)
def test_mean_ap_of_cases_known_by_hand(tmp_path: Path, rows: tuple, score: dict) -> None:
    read = ground_truth.read_labels(written(tmp_path, document()), NAMES, LABELS)
    assert asdict(ground_truth.mean_ap([detections(*one) for one in rows], read)) == pytest.approx(
        score, abs=0.01
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": [{"id": 40, "name": "nutt"}, {"id": 2, "name": "bolt"}]}, "did you mean 'nut'"),
        ({"categories": []}, "expected categories named like"),
        ({"images": [{"id": 5, "file_name": "a.png"}]}, r"got none for b\.png"),
        ({"annotations": []}, "expected objects in the evaluation images"),
        ({"annotations": [{"image_id": 5, "category_id": 2, "bbox": [1, 2, 3]}]}, "expected COCO's JSON"),
        ({"annotations": 5}, "expected COCO's JSON"),
        (
            {"images": [*document()["images"], {"id": 8, "file_name": "other/a.png"}]},
            r"expected each image once, got a\.png 2 times",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(tmp_path: Path, change: dict, message: str) -> None:
    with pytest.raises(OptimizeError, match=message):
        ground_truth.read_labels(written(tmp_path, document(**change)), NAMES, LABELS)


def test_a_file_that_is_not_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("nothing")
    with pytest.raises(OptimizeError, match="expected COCO's JSON"):
        ground_truth.read_labels(tmp_path / "labels.json", NAMES, LABELS)
    with pytest.raises(OptimizeError, match="No such file"):
        ground_truth.read_labels(tmp_path / "none.json", NAMES, LABELS)


@pytest.mark.timeout(300)
def test_the_real_ssd_against_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The labels are the model's own boxes above its threshold, so its mAP must be high."""
    clip_or_skip("vtest.avi")
    bundle = bundle_or_skip(SSD)
    detector = Detector.from_bundle(bundle, open_session(bundle, "onnxruntime")[0])
    folder = tmp_path / "images"
    folder.mkdir()
    labels: dict = {"images": [], "annotations": [], "categories": []}
    labels["categories"] = [{"id": i, "name": name} for i, name in enumerate(bundle.labels)]
    for number in range(10):
        frame = video_frame("vtest.avi", 50 + 70 * number)
        cv2.imwrite(str(folder / f"{number}.png"), frame.image)
        labels["images"].append({"id": number, "file_name": f"{number}.png"})
        boxes = detector.detect(frame).detections
        for (left, top, right, bottom), class_id in zip(boxes.xyxy_px, boxes.class_ids, strict=True):
            box = [float(v) for v in (left, top, right - left, bottom - top)]
            labels["annotations"].append({"image_id": number, "category_id": int(class_id), "bbox": box})
    arguments = ["--precisions", "fp32", "--backends", "onnxruntime", "--threads", "1", "--measure-s", "0.2"]
    run = ["run", SSD, "--frames", str(folder), "--labels", str(written(tmp_path, labels)), *arguments]
    assert main([*run, "--sizes", "native", "--out", str(tmp_path / "out")]) == 0
    assert "agreem.  AP50" in capsys.readouterr().out
    baseline = read_report(tmp_path / "out").results[0]
    mean_ap = baseline.measured.mean_ap
    assert mean_ap and mean_ap.map > 0.9 and mean_ap.map50 > 0.95 and baseline.agreement == 1.0
    assert main(["explain", str(tmp_path / "out"), baseline.id]) == 0
    assert "against the labels: mAP" in capsys.readouterr().out
    labels["categories"] = [{"id": i, "name": f"thing {i}"} for i in range(len(bundle.labels))]
    run[5] = str(written(tmp_path, labels))
    assert main([*run, "--out", str(tmp_path / "other")]) == 1
    assert "expected categories named like" in capsys.readouterr().err
