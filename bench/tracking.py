#!/usr/bin/env python3
"""Tracks against held boxes at an equal share of inferred frames. `make bench-tracking`. Prints a table and
writes out/bench/tracking.json.

Every N-th frame is inferred, starting at each of the first N frames in turn; the figures pool these N runs.
Frame F1 compares the boxes on all frames with the every-frame detector's (same class, IoU 0.5).

held             the last detections are repeated
tracks           as the detector node publishes them, with the camera motion that the gate measures
tracks, still    the same without camera motion, as if the camera stood still
id switches      of these tracks
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parts.common import REPO

from edge_vision.core.detections import Detections
from edge_vision.evaluate.baselines import CameraMotionEstimator
from edge_vision.evaluate.metrics.frame_f1 import pooled_f1
from edge_vision.evaluate.metrics.id_switches import id_switches
from edge_vision.evaluate.reference.clips import clip_condition, known_clips
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, frame_of, reference_of
from edge_vision.evaluate.reference.events import track_ids
from edge_vision.evaluate.simulation import Published, assumed, with_held_boxes, with_tracks
from edge_vision.offline.provenance import hash_of, machine, versions, write_json

INTERVALS = (2, 3, 4)
TOLERANCE = 0.002


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--video", type=Path, nargs="+", help="default: all clips that were fetched")
    parser.add_argument("--intervals", type=int, nargs="+", default=INTERVALS, metavar="N")
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "tracking.json")
    options = parser.parse_args()
    videos = options.video or known_clips()
    detector = ReferenceDetector()
    rows: list[dict[str, Any]] = []
    print(f"{'clip':22}{'N':>3}{'held':>8}{'tracks':>9}{'still':>9}{'id switches':>14}")
    for path in videos:
        for row in measure(path, options.intervals, detector):
            rows.append(row)
            figures = "".join(f"{row[name]:9.4f}" for name in ("tracks", "tracks_still"))
            switches = f"{row['id_switches']:8}{row['id_switches_still']:6}"
            print(f"{row['clip']:22}{row['n']:3}{row['held']:8.4f}{figures}{switches}", flush=True)
    worse = {
        name: [(row["clip"], row["n"]) for row in rows if row[name] < row["held"] - TOLERANCE]
        for name in ("tracks", "tracks_still")
    }
    for name, where in worse.items():
        print(f"{name}: worse than held boxes by more than {TOLERANCE:g} on {where or 'none'}")
    result = {"machine": machine(), "versions": versions(), "rows": rows, "worse": worse}
    result["hashes"] = {path.name: hash_of(path) for path in videos} | {"model": detector.bundle.sha256}
    write_json(options.out, result)
    print(options.out)
    return 0


def measure(path: Path, intervals: Sequence[int], detector: ReferenceDetector) -> list[dict[str, Any]]:
    """The rows of a clip: `rows_of` with its name."""
    condition = clip_condition(path)
    reference = reference_of(condition, condition.n_frames, detector, lambda _: None)
    camera = CameraMotionEstimator()
    for scene, _ in zip(condition.frames(), reference.detections, strict=False):
        camera.process(frame_of(scene))
    rows = rows_of(reference, assumed(camera.motions), intervals)
    return [{"clip": path.stem, **row} for row in rows]


def rows_of(
    reference: Reference, motions: Sequence[np.ndarray], intervals: Sequence[int]
) -> list[dict[str, Any]]:
    """The figures of each interval. motions: (3, 3) of the camera since the frame before, source pixels."""
    objects, rows = track_ids(reference), []
    for n in intervals:
        frames = [_inferred(n, phase, len(reference)) for phase in range(n)]
        tracks = [with_tracks(one, reference, motions) for one in frames]
        still = [with_tracks(one, reference) for one in frames]
        rows.append(
            {
                "n": n,
                "held": _f1([with_held_boxes(one, reference) for one in frames], reference),
                "tracks": _f1(tracks, reference),
                "tracks_still": _f1(still, reference),
                "id_switches": _switches(tracks, reference, objects),
                "id_switches_still": _switches(still, reference, objects),
            }
        )
    return rows


def _inferred(n: int, phase: int, frames: int) -> np.ndarray:
    """(frames,) bool: the first frame, and every n-th one from `phase` on."""
    at = np.arange(frames)
    return (at % n == phase) | (at == 0)


def _f1(runs: list[Published], reference: Reference) -> float:
    shown: list[Detections] = [found for run in runs for found in run.detections]
    return pooled_f1(shown, reference.detections * len(runs)) or 0.0


def _switches(runs: list[Published], reference: Reference, objects: list[np.ndarray]) -> int:
    return sum(id_switches(run.detections, run.ids or [], reference.detections, objects) for run in runs)


if __name__ == "__main__":
    sys.exit(main())
