"""edge_vision: a camera topic in, detection topics out, on small computers.

    camera --image_raw--> gate --> cascade --> detector --> detections
                           |          |           |
                           +----------+-----------+--> ledger --> diagnostics --> /diagnostics

core         frame, detections, ledger, geometry, concurrency (a newest-wins mailbox in front of each worker)
bundles      a model as one folder: manifest, graphs, labels, hashes
backends     one file per runtime
tracking     known objects between inferences
detect       preprocessing, a backend's session, a head: boxes in source pixels
source       files, devices and streams
gate         passes a frame if something new is visible
cascade      light classifiers in front of the detector
diagnostics  sensors, and why nothing is published
nodes        the ROS nodes; the only place that imports rclpy
importer, optimize, model_zoo, evaluate, cli    offline tools and commands

The order is that of the imports, see docs/architecture.md. This module imports the standard library only, so
that each part costs only what it needs. It sets variables that libraries read during their import: OpenCV's
limits on decoding (in addition to `core/frame.py: check_size`), and the opt-out of the telemetry that ONNX
Runtime and OpenVINO send by default.
"""

import os
import sys

for _limit, _most in (("PIXELS", 16384 * 16384), ("WIDTH", 16384), ("HEIGHT", 16384)):
    os.environ.setdefault(f"OPENCV_IO_MAX_IMAGE_{_limit}", str(_most))
# Read during the import of ONNX Runtime. ORT_DISABLE_TELEMETRY=0 in the environment takes precedence.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO's only switch is a file in the home folder. Without this package it uses a stub.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
