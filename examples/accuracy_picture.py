#!/usr/bin/env python3
"""Draws our labels of one frame of a public clip, and what a detector finds there.

Green: detections that match a label. Red: detections that match none. Yellow: labels that were missed. Grey,
hatched: ignored regions.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np

from edge_vision.backends import open_session
from edge_vision.bundles import load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import iou_matrix
from edge_vision.detect.detector import Detector
from edge_vision.evaluate.accuracy.labels import labelled_frames, read_label_set
from edge_vision.evaluate.accuracy.scores import class_numbers, in_classes_of_labels

GREEN, RED, YELLOW, GREY = (0, 220, 0), (60, 60, 255), (0, 220, 255), (160, 160, 160)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("out", help="output image, .png or .jpg")
parser.add_argument("--clip", default="vtest", help="a clip of the labels, by name or file")
parser.add_argument("--number", type=int, default=0, help="which of its labelled frames, from 0")
parser.add_argument("--model", default="nanodet", help="bundle, by name or folder")
options = parser.parse_args()

labels = read_label_set(clips=[Path(options.clip).stem])
bundle = load_bundle(options.model)
detector = Detector.from_bundle(bundle, open_session(bundle, "onnxruntime")[0])
image = next(image for position, image in labelled_frames(labels) if position == options.number)
wanted = labels.images[options.number]
found = in_classes_of_labels(
    detector.detect(Frame(image, 0, "")).detections, class_numbers(bundle.labels, labels)
)


def draw(box: np.ndarray, color: tuple[int, int, int], text: str = "") -> None:
    left, top, right, bottom = map(int, box)
    cv2.rectangle(image, (left, top), (right, bottom), color, 2)
    cv2.putText(image, text, (left, max(top - 4, 10)), cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, 1, cv2.LINE_AA)


for left, top, right, bottom in wanted.xyxy_px[wanted.ignored].astype(int).tolist():
    for x in range(left, right, 8):
        cv2.line(image, (x, bottom), (min(x + bottom - top, right), max(top, bottom - right + x)), GREY, 1)
counted = ~wanted.ignored
same = iou_matrix(found.xyxy_px, wanted.xyxy_px[counted]) >= 0.5
same &= found.class_ids[:, None] == wanted.class_ids[counted]
hit, labelled = np.atleast_1d(same.any(axis=1)), np.atleast_1d(same.any(axis=0))
in_ignored = np.zeros(len(found), bool)
for left, top, right, bottom in wanted.xyxy_px[wanted.ignored]:
    center = (found.xyxy_px[:, :2] + found.xyxy_px[:, 2:]) / 2
    in_ignored |= ((center >= (left, top)) & (center <= (right, bottom))).all(axis=1)
for box, score, is_hit, is_ignored in zip(found.xyxy_px, found.scores, hit, in_ignored, strict=True):
    draw(box, GREEN if is_hit else GREY if is_ignored else RED, f"{score:.2f}")
for box in wanted.xyxy_px[counted][~labelled]:
    draw(box, YELLOW)
cv2.imwrite(options.out, image)
print(
    f"{options.out}: frame {wanted.frame}, {int(counted.sum())} labels, {int(labelled.sum())} found, "
    f"{int((~hit & ~in_ignored).sum())} false"
)
