#!/usr/bin/env python3
"""Runs the detector without ROS on an image, or on one frame of a video, and draws the detections."""

import argparse

import cv2

from edge_vision.backends import open_session
from edge_vision.bundles import load_bundle
from edge_vision.core.detection_overlay import draw_detections, label_of
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("picture", help="an image or video file")
parser.add_argument("out", help="output image with boxes, .png or .jpg")
parser.add_argument("--frame", type=int, default=0, help="frame of a video (default: the first)")
parser.add_argument("--model", default="nanodet")
options = parser.parse_args()

capture = cv2.VideoCapture(options.picture)
capture.set(cv2.CAP_PROP_POS_FRAMES, options.frame)
read, image = capture.read()
if not read:
    raise SystemExit(f"cannot read frame {options.frame} of {options.picture}")

bundle = load_bundle(options.model)
session, report = open_session(bundle, "auto")
found = Detector.from_bundle(bundle, session).detect(Frame(image, 1, "camera", "bgr8")).detections
for (left, top, right, bottom), score, class_id in zip(
    found.xyxy_px, found.scores, found.class_ids, strict=True
):
    print(
        f"{label_of(bundle.labels, class_id)} {score:.2f} {left:.0f},{top:.0f} to {right:.0f},{bottom:.0f} px"
    )
cv2.imwrite(options.out, draw_detections(image, found, bundle.labels))
print(f"{options.out}: {len(found)} objects, by {report.actual.backend} {report.actual.version}")
