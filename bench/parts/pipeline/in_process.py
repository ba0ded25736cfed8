"""One measurement inside a process that hosts the composed pipeline. Started by bench/pipeline.py.

python bench/parts/pipeline/in_process.py hop --size 640x480 --count 100
python bench/parts/pipeline/in_process.py overhead --size 640x480 --count 200 --fps 10
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
from parts.common import spread

MB_OF_PICTURES = 120


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--size", default="640x480", help="width x height of the pictures, in px")
    parser.add_argument("--count", type=int, default=100, help="frames")
    parser.add_argument("--fps", type=float, default=10.0, help="frames per second; 0 = back to back")
    options = parser.parse_args()
    width_px, height_px = map(int, options.size.split("x"))
    pictures = read_pictures(options.video, (width_px, height_px))
    cv2.setNumThreads(1)  # As the executables do.
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    try:
        result = PARTS[options.part](pictures, options.fps, options.count)
    finally:
        rclpy.try_shutdown()
    print("RESULT " + json.dumps(result))
    return 0


def read_pictures(video: Path, size: tuple[int, int]) -> list[np.ndarray]:
    """Every third frame of a video at this size, as many as fit into the memory set aside."""
    capture = cv2.VideoCapture(str(video))
    pictures: list[np.ndarray] = []
    number = 0
    while (len(pictures) + 1) * size[0] * size[1] * 3 < MB_OF_PICTURES * 1e6:
        ok, picture = capture.read()
        if not ok:
            break
        if number % 3 == 0:
            pictures.append(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))
        number += 1
    if not pictures:
        raise SystemExit(f"expected a video that OpenCV can read, got {video}")
    return pictures


def hop(pictures: list[np.ndarray], fps_hz: float, count: int) -> dict[str, Any]:
    """From `forward` in the gate's thread to `process` in the detector's, which waits idle; and the same from
    the camera's thread to the gate's. The detector drops the frame, so that only the hop is seen."""
    from parts.pipeline.instruments import IdleDetector, Run

    run = Run(pictures, fps_hz, count, IdleDetector)
    run({"detector": {"backend": "onnxruntime"}})
    passed = [m for m in run.marks if "detector_start" in m]
    return {
        "gate_to_detector_ms": spread((m["detector_start"] - m["gate_end"]) * 1e3 for m in passed),
        "source_to_gate_ms": spread(
            (m["gate_start"] - m["intake"]) * 1e3 for m in run.marks if "gate_start" in m
        ),
    }


def overhead(pictures: list[np.ndarray], fps_hz: float, count: int) -> dict[str, Any]:
    """Per frame that was inferred, see `overhead_ratio` in bench/pipeline.py."""
    from parts.pipeline.instruments import Run, TimedDetector

    run = Run(pictures, fps_hz, count, TimedDetector)
    run({"detector": {"backend": "onnxruntime"}})
    seen = [m for m in run.marks if "published" in m]
    latency = np.array([(m["published"] - m["intake"]) * 1e3 for m in seen])
    inference = np.array([m["inference_ms"] for m in seen])
    detect = np.array([m["detect_ms"] for m in seen])
    cpu = np.array([m["inference_cpu_ms"] for m in seen])
    per_frame_cpu_ms = float(cpu.sum()) / len(run.marks)
    return {
        "frames": len(run.marks),
        "inferred": len(seen),
        "latency_ms": spread(latency),
        "inference_ms": spread(inference),
        "overhead_ms": spread(latency - inference),
        "overhead_ratio_strict": float(np.median((latency - inference) / inference)),
        "overhead_ratio": float(np.median((latency - detect) / detect)),
        "overhead_cpu_ratio": (run.cpu_ms - per_frame_cpu_ms) / per_frame_cpu_ms,
        "cpu_ms_per_frame": run.cpu_ms,
        "inference_cpu_ms": spread(cpu),
        "parts_ms": _parts(seen),
    }


def _parts(seen: list[dict[str, float]]) -> dict[str, Any]:
    """Where the time of a frame goes, from its intake to the publishing."""
    edges = ("intake", "gate_start", "gate_end", "detector_start", "detect_end", "published", "detector_end")
    names = ("hop to gate", "gate", "hop to detector", "detect", "message and publish", "ledger and figures")
    parts = {
        name: spread((m[end] - m[start]) * 1e3 for m in seen if end in m)
        for name, start, end in zip(names, edges, edges[1:], strict=False)
    }
    return {**parts, "of detect, not inference": spread(m["detect_ms"] - m["inference_ms"] for m in seen)}


PARTS = {"hop": hop, "overhead": overhead}

if __name__ == "__main__":
    sys.exit(main())
