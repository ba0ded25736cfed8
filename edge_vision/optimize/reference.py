"""Labels: what is really on the pictures, and COCO's mean average precision of what was found.

This is accuracy; agreement with the fp32 model is another thing, and the two are never mixed.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.bundles.schema import nearest
from edge_vision.core.detections import Detections
from edge_vision.optimize.errors import OptimizeError

SCORE_THRESHOLD = 0.05
"""mAP looks at all scores; below this there is hardly anything right."""


def check_installed() -> None:
    """Raise OptimizeError where the package that gives the scores is missing."""
    if importlib.util.find_spec("pycocotools") is None:
        raise OptimizeError("--labels needs the package pycocotools: pip install pycocotools")


def read_truth(file: Path, pictures: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """A COCO JSON file as COCO's own structure for these pictures: image ids count them, category ids are
    the bundle's class ids, found by name.

    pictures: file names. labels: of the bundle. Raises OptimizeError where it does not fit them.
    """
    document = _document(file)
    ids = _class_ids(file, document, labels)
    images = {Path(str(image["file_name"])).name: image["id"] for image in document["images"]}
    missing = [name for name in pictures if name not in images]
    if missing:
        raise OptimizeError(
            f"{file}: expected labels for each picture to judge on, got none for {', '.join(missing[:5])}"
            f"{' and others' if len(missing) > 5 else ''} (an image without objects is listed too)"
        )
    place = {images[name]: number for number, name in enumerate(pictures)}
    annotations = [
        {
            "id": number,
            "image_id": place[one["image_id"]],
            "category_id": ids[one["category_id"]],
            "bbox": [float(value) for value in one["bbox"]],
            "area": float(one.get("area", one["bbox"][2] * one["bbox"][3])),
            "iscrowd": int(one.get("iscrowd", 0)),
        }
        for number, one in enumerate(document["annotations"], 1)
        if one["image_id"] in place
    ]
    if not annotations:
        raise OptimizeError(f"{file}: expected objects on the pictures to judge on, got none")
    return {
        "images": [{"id": number} for number in range(len(pictures))],
        "categories": [{"id": i, "name": name} for i, name in enumerate(labels)],
        "annotations": annotations,
    }


def _document(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text("utf-8"))
        for one in document["annotations"]:
            if len(one["bbox"]) != 4 or not np.isfinite(np.array(one["bbox"], float)).all():
                raise ValueError(f"bbox {one['bbox']}")
            _ = one["image_id"], one["category_id"]
        for one in document["images"]:
            _ = one["id"], one["file_name"]
        _ = [(one["id"], one["name"]) for one in document["categories"]]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise OptimizeError(
            f"{file}: expected COCO's JSON with images, annotations (bbox: left, top, width, height) and "
            f"categories, got: {error!r}"
        ) from None
    return dict(document)


def _class_ids(file: Path, document: dict[str, Any], labels: Sequence[str]) -> dict[Any, int]:
    """Category id of the file -> class id of the bundle, for the categories that are used."""
    known = {label.lower(): i for i, label in enumerate(labels)}
    used = {one["category_id"] for one in document["annotations"]}
    names = {one["id"]: str(one["name"]) for one in document["categories"]}
    foreign = sorted(str(names.get(i, i)) for i in used if names.get(i, "").lower() not in known)
    if foreign:
        raise OptimizeError(
            f"{file}: its labels are of another class list: the model knows no {', '.join(foreign[:5])}"
            f"{nearest(foreign[0].lower(), known)}; name the categories as the bundle's labels"
        )
    return {i: known[names[i].lower()] for i in used}


def mean_ap(found: Sequence[Detections], truth: dict[str, Any]) -> dict[str, float]:
    """COCO's AP over IoU 0.5 to 0.95 and AP at 0.5, by pycocotools, over the classes that are labelled."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    results = [
        {
            "image_id": number,
            "category_id": int(class_id),
            "bbox": [float(v) for v in (box[0], box[1], box[2] - box[0], box[3] - box[1])],
            "score": float(score),
        }
        for number, one in enumerate(found)
        for box, score, class_id in zip(one.xyxy_px, one.scores, one.class_ids, strict=True)
    ]
    if not results:
        return {"map": 0.0, "map50": 0.0}
    with contextlib.redirect_stdout(io.StringIO()):  # It prints as it goes.
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        judged = COCOeval(coco, coco.loadRes(results), "bbox")
        judged.params.catIds = sorted({one["category_id"] for one in truth["annotations"]})
        judged.evaluate()
        judged.accumulate()
        judged.summarize()
    return {"map": round(float(judged.stats[0]), 4), "map50": round(float(judged.stats[1]), 4)}
