#!/usr/bin/env python3
"""Draws the crops that a cascade stage classifies on one frame of a clip, behind the gate, without ROS.

Yellow: the gate's regions. Crops with their scores: green accepted, red rejected, blue unsure. On the right
the tiles of the whole frame, of which the round-robin takes some per frame.
"""

import argparse

import cv2
import numpy as np

from edge_vision.backends import BackendRequest, open_session
from edge_vision.bundles import load_bundle
from edge_vision.cascade.stages import stage_from_bundle
from edge_vision.cascade.tiling import covering_crops, crop_side_px, tiles
from edge_vision.core.frame import Frame
from edge_vision.detect.classifier import Classifier
from edge_vision.gate.frame_gate import FrameGate, GateConfig

COLORS = {"accept": (0, 220, 0), "reject": (60, 60, 255), "unsure": (255, 160, 0)}

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("video")
parser.add_argument("out", help="output image, .png or .jpg")
parser.add_argument("--frame", type=int, default=100, help="frame to draw; the gate analyses all before it")
parser.add_argument("--bundle", default="person_vehicle_stage", help="a stage, by name or folder")
options = parser.parse_args()

bundle = load_bundle(options.bundle)
if bundle.manifest.stage is None or not bundle.manifest.stage.look_share:
    raise SystemExit(
        f"expected a fitted cascade stage, got {bundle}: "
        "fit one with python -m edge_vision evaluate fit-cascade"
    )
session, _ = open_session(bundle, "onnxruntime", BackendRequest(threads=1))
stage = stage_from_bundle(bundle, Classifier.from_bundle(bundle, session))

capture = cv2.VideoCapture(options.video)
fps_hz = capture.get(cv2.CAP_PROP_FPS) or 30.0
gate = FrameGate(GateConfig(audit_rate=0.0))
for index in range(options.frame + 1):
    read, image = capture.read()
    if not read:
        raise SystemExit(f"{options.video} has no frame {index}")
    stamp_ns = round((index + 1) * 1e9 / fps_hz)
    frame = Frame(image, stamp_ns, "camera")
    decision = gate.decide(frame, stamp_ns)

side_px = crop_side_px(frame.width_px, frame.height_px, stage.crop_share)
grid = tiles(frame.width_px, frame.height_px, side_px)
crops = grid
if len(decision.regions):
    crops = covering_crops(decision.regions, frame.width_px, frame.height_px, side_px)
cells = []
for boxes, regions in ((crops, decision.regions), (grid, decision.regions[:0])):
    cell = image.copy()
    for left, top, right, bottom in regions.astype(int).tolist():
        cv2.rectangle(cell, (left, top), (right, bottom), (0, 255, 255), 2)
    verdicts, scores = stage.classify(frame, boxes)
    for (left, top, right, bottom), verdict, score in zip(boxes.astype(int), verdicts, scores, strict=True):
        cv2.rectangle(cell, (left + 2, top + 2), (right - 3, bottom - 3), COLORS[verdict], 2)
        position = (left + 8, top + 24)
        for color, width in (((0, 0, 0), 4), (COLORS[verdict], 1)):
            cv2.putText(
                cell, f"{score:.2f}", position, cv2.FONT_HERSHEY_SIMPLEX, 0.6, color, width, cv2.LINE_AA
            )
    cells.append(cell)
cv2.imwrite(options.out, np.hstack(cells))
print(f"{options.out}: {len(crops)} crops for {len(decision.regions)} regions, side {side_px} px, {bundle}")
