#!/usr/bin/env python3
"""Plays a clip through the gate, without ROS, and draws one frame with the gate's intermediate images."""

import argparse
from collections import Counter

import cv2
import numpy as np

from edge_vision.core.frame import Frame
from edge_vision.gate.frame_gate import FrameGate, GateConfig

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("video")
parser.add_argument("out", help="output image, .png or .jpg")
parser.add_argument(
    "--frame", type=int, default=100, help="frame to draw; the gate analyses all frames before it"
)
parser.add_argument("--pan", type=float, default=0.0, help="simulate a panning camera, in px per frame")
options = parser.parse_args()

capture = cv2.VideoCapture(options.video)
fps_hz = capture.get(cv2.CAP_PROP_FPS) or 30.0
gate = FrameGate(GateConfig(audit_rate=0.0))
reasons: Counter[str] = Counter()
for index in range(options.frame + 1):
    read, image = capture.read()
    if not read:
        raise SystemExit(f"{options.video} has no frame {index}")
    if options.pan:
        # Three quarters of the width, moved back and forth: a camera that pans over the clip.
        width = image.shape[1] * 3 // 4 // 2 * 2
        travel = image.shape[1] - width
        left = abs((index * options.pan + travel) % (2 * travel) - travel)
        matrix = np.array([[1, 0, -left], [0, 1, 0]], np.float32)
        image = cv2.warpAffine(image, matrix, (width, image.shape[0]))
    stamp_ns = round((index + 1) * 1e9 / fps_hz)
    decision = gate.decide(Frame(image, stamp_ns, "camera"), stamp_ns)
    reasons[decision.reason] += 1

for left, top, right, bottom in decision.regions.astype(int).tolist():
    cv2.rectangle(image, (left, top), (right, bottom), (0, 255, 255), 3)
pictures = gate.pictures()
cells = [image] + [cv2.cvtColor(part, cv2.COLOR_GRAY2BGR) for part in pictures.values()]
names = (f"frame {options.frame}: {decision.reason}", *pictures)
height = 240
for n, (cell, name) in enumerate(zip(cells, names, strict=True)):
    cells[n] = cv2.resize(cell, (round(cell.shape[1] * height / cell.shape[0]), height))
    cv2.putText(cells[n], name, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (0, 255, 0), 1, cv2.LINE_AA)
cv2.imwrite(options.out, np.hstack(cells))
print(f"{options.out}: {decision.reason}, {len(decision.regions)} regions; so far {dict(reasons)}")
