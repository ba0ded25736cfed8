"""edge_vision: a camera topic in, detection topics out, on small computers.

    camera --image_raw--> gate --> cascade --> detector --> detections
                           |          |           |
                           +----------+-----------+--> ledger --> diagnostics --> /diagnostics

gate       `gate/frame_gate.py`      lets a frame pass when something new could be seen in it
cascade    `cascade/cascade.py`   a light classifier looks first, the detector runs where it is worth it
detector   `detect/detector.py`  preprocess, a session of a backend, a head: boxes in source pixels
mailbox    `core/concurrency/mailbox.py`   one newest-wins slot in front of each worker; no queues
ledger     `core/ledger.py`    received = inferred + gated + rejected + superseded + failed + in_flight
sensors    `core/sensors/`     what the machine tells: CPU, memory, heat, power, GPU
causes     `diagnostics/causes.py`    why nothing is published, from facts to one sentence
backends   `backends/`         one file per runtime
bundles    `bundles/`          a model as one folder: manifest, graphs, labels, hashes
optimize   `optimize/`         from a model to the best bundle for this device, measured
nodes      `nodes/`            the ROS shells, the only place that imports rclpy

This module imports nothing but the standard library, so that each part costs only what it needs. It sets what
libraries read when they are first imported: OpenCV's limits on decoding (a second wall behind
`core/frame.py: check_size`) and the opt-out of the telemetry that ONNX Runtime and OpenVINO send by default.
"""

import os
import sys

for _limit, _most in (("PIXELS", 16384 * 16384), ("WIDTH", 16384), ("HEIGHT", 16384)):
    os.environ.setdefault(f"OPENCV_IO_MAX_IMAGE_{_limit}", str(_most))
# ONNX Runtime reads it when it is imported; ORT_DISABLE_TELEMETRY=0 in the environment takes precedence.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# OpenVINO has no switch but a file in the home folder. Without this package it uses a stub of its own.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

__version__ = "0.1.0"
