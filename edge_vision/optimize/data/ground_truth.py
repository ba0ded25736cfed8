"""Labels in COCO's format, and the mean average precision of detections against them.

mAP measures accuracy; agreement with the fp32 model is a different quantity (`agreement`).
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_vision.bundles.schema import nearest
from edge_vision.core.detections import Detections
from edge_vision.core.missing_package import install_command
from edge_vision.optimize.errors import OptimizeError

SCORE_THRESHOLD = 0.05
"""mAP integrates over all scores; detections below this hardly contribute."""
MAX_PX = 1e9
"""Of a coordinate or area; float32 has no NaN or infinity up to there."""


@dataclass(frozen=True, slots=True)
class MeanAp:
    """COCO's AP over IoU 0.5 to 0.95, and AP at IoU 0.5."""

    map: float
    map50: float


def check_installed() -> None:
    """Raise OptimizeError if pycocotools is missing."""
    if importlib.util.find_spec("pycocotools") is None:
        raise OptimizeError(f"labels need the package pycocotools: {install_command('pycocotools')}")


def read_labels(file: Path, images: Sequence[str], classes: Sequence[str]) -> dict[str, Any]:
    """A COCO JSON file in COCO's own structure, restricted to these images.

    Image ids are positions in `images` (file names); category ids are positions in `classes` (the bundle's
    labels), matched by name. Raises OptimizeError if the file does not fit them.
    """
    document = read_document(file)
    class_ids = _class_ids(file, document, classes)
    ids = {Path(str(image["file_name"])).name: image["id"] for image in document["images"]}
    missing = [name for name in images if name not in ids]
    counts = Counter(Path(str(image["file_name"])).name for image in document["images"])
    if repeated := [name for name in images if counts[name] > 1]:
        raise OptimizeError(
            f"{file}: expected each image once, got {repeated[0]} {counts[repeated[0]]} times"
        )
    if missing:
        raise OptimizeError(
            f"{file}: expected labels for each evaluation image, got none for {', '.join(missing[:5])}"
            f"{' and others' if len(missing) > 5 else ''} (images without objects must be listed too)"
        )
    positions = {ids[name]: number for number, name in enumerate(images)}
    annotations = [
        {
            "id": number,
            "image_id": positions[one["image_id"]],
            "category_id": class_ids[one["category_id"]],
            "bbox": [float(value) for value in one["bbox"]],
            "area": float(one.get("area", one["bbox"][2] * one["bbox"][3])),
            "iscrowd": int(one.get("iscrowd", 0)),
        }
        for number, one in enumerate(document["annotations"], 1)
        if one["image_id"] in positions
    ]
    if not annotations:
        raise OptimizeError(f"{file}: expected objects in the evaluation images, got none")
    return {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes)],
        "annotations": annotations,
    }


def read_document(file: Path) -> dict[str, Any]:
    """A COCO JSON file. Raises OptimizeError if its structure is not COCO's."""
    try:
        document = dict(json.loads(file.read_text("utf-8")))
        for key, name in (("images", "file_name"), ("categories", "name"), ("videos", "name")):
            listed = document.get(key, []) if key == "videos" else document[key]
            ids = {one["id"] for one in listed if one[name]}
            if len(ids) < len(listed):
                raise ValueError(
                    f"{key}: expected a {name} and an own id in each, got {len(ids)} of {len(listed)}"
                )
        _ = [hash(one.get("video_id")) for one in document["images"]]
        for one in document["annotations"]:
            _check_annotation(one)
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise OptimizeError(
            f"{file}: expected COCO's JSON with images, annotations (bbox: left, top, width, height) and "
            f"categories, got: {error!r:.300}"
        ) from None
    return document


def _check_annotation(one: dict[str, Any]) -> None:
    """Raises ValueError, TypeError or KeyError."""
    _ = hash((one["image_id"], one["category_id"]))
    left, top, width, height = one["bbox"]
    area, crowd, track = one.get("area", 0), one.get("iscrowd", 0), one.get("track_id") or 0
    numbers = (left, top, width, height, area)
    if not all(type(v) in (int, float) and abs(v) <= MAX_PX for v in numbers) or min(width, height, area) < 0:
        raise ValueError(f"bbox {one['bbox']}, area {area}: expected finite numbers, no negative sizes")
    if crowd not in (0, 1) or type(track) is not int or abs(track) >= 2**63:
        raise ValueError(f"iscrowd {crowd!r}, track_id {track!r}: expected 0 or 1, and an integer")


def _class_ids(file: Path, document: dict[str, Any], classes: Sequence[str]) -> dict[Any, int]:
    """Category id of the file -> class id of the bundle, for the categories in use."""
    known = {label.lower(): i for i, label in enumerate(classes)}
    used = {one["category_id"] for one in document["annotations"]}
    names = {one["id"]: str(one["name"]) for one in document["categories"]}
    unknown = sorted(str(names.get(i, i)) for i in used if names.get(i, "").lower() not in known)
    if unknown:
        raise OptimizeError(
            f"{file}: expected categories named like the bundle's labels, got {', '.join(unknown[:5])}"
            f"{nearest(unknown[0].lower(), known)}"
        )
    return {i: known[names[i].lower()] for i in used}


def mean_ap(detections: Sequence[Detections], labels: dict[str, Any]) -> MeanAp:
    """COCO's AP by pycocotools, averaged over the labelled classes. detections: one for each image."""
    if not any(len(one) for one in detections):
        return MeanAp(0.0, 0.0)
    evaluation = coco_evaluation(detections, labels)
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation.summarize()
    return MeanAp(round(float(evaluation.stats[0]), 4), round(float(evaluation.stats[1]), 4))


def coco_evaluation(detections: Sequence[Detections], labels: dict[str, Any]) -> Any:
    """The COCOeval of pycocotools with `evalImgs` and `eval`. detections: one for each image, at least one in
    all; labels: as from `read_labels`."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = [
        {
            "image_id": number,
            "category_id": int(class_id),
            "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": float(score),
        }
        for number, one in enumerate(detections)
        for box, score, class_id in zip(one.xyxy_px, one.scores, one.class_ids, strict=True)
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints its progress.
        coco = COCO()
        coco.dataset = labels
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.params.catIds = sorted({one["category_id"] for one in labels["annotations"]})
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation
