"""Pictures as a document in COCO's format, which Datumaro, CVAT and pycocotools read."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from edge_vision.dataset.picture import REJECTED, LabelledBox, Picture

IMAGE_SUFFIX = ".jpg"


def coco_document(pictures: Iterable[Picture], labels: Sequence[str], description: str) -> bytes:
    """The JSON text. labels: of the first categories, in this order.

    Rejected pictures are left out. Before a review, a picture has the model's proposals that reach the
    threshold, with their `score`. Each image has `edge_vision`, too: why it was kept, by which model, its
    review.
    """
    ids = {label: number for number, label in enumerate(dict.fromkeys(labels), 1)}
    images: list[str] = []
    annotations: list[str] = []
    for picture in pictures:
        if picture.state == REJECTED:
            continue
        # Encoded one by one: Python's encoder blocks the threads of a pipeline.
        images.append(json.dumps(_image(picture, len(images) + 1)))
        for box in picture.labels:
            category = ids.setdefault(box.label, len(ids) + 1)
            annotations.append(json.dumps(_annotation(box, len(annotations) + 1, len(images), category)))
    categories = [{"id": number, "name": label, "supercategory": ""} for label, number in ids.items()]
    parts = (
        f'"info": {json.dumps({"description": description, "version": "1"})}',
        '"licenses": []',
        f'"categories": {json.dumps(categories)}',
        '"images": [' + ",\n".join(images) + "]",
        '"annotations": [' + ",\n".join(annotations) + "]",
    )
    return ("{" + ",\n".join(parts) + "}\n").encode()


def _image(picture: Picture, number: int) -> dict[str, Any]:
    return {
        "id": number,
        "file_name": picture.name + IMAGE_SUFFIX,
        "width": picture.width_px,
        "height": picture.height_px,
        "date_captured": picture.collected,
        "edge_vision": {
            "reason": picture.reason,
            "classes": picture.classes,
            "camera": picture.camera,
            "frame_id": picture.frame_id,
            "stamp_ns": picture.stamp_ns,
            "bundle": picture.bundle,
            "bundle_sha256": picture.bundle_sha256,
            "review": picture.state,
        },
    }


def _annotation(box: LabelledBox, number: int, image: int, category: int) -> dict[str, Any]:
    annotation = {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": box.bbox,
        "area": round(box.bbox[2] * box.bbox[3], 2),
        "iscrowd": 0,
    }
    return annotation if box.score is None else {**annotation, "score": box.score}
