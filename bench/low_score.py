#!/usr/bin/env python3
"""What low-score detections predict about the next frame. `make bench-low-score`. Prints a table and writes
out/bench/low_score.json.

found again      share of the detections of a score that are detected on the next frame (same class, IoU 0.5)
at risk          events that an interval of three frames publishes late, for one of its three phases
announced        of these, events all of whose objects had a low-score detection on the frame before (IoU 0.3)
no announcement  frames without a low-score detection that is of a class of this clip and on no detection
decoding         what low-score detections cost the detector per frame
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from parts.common import REPO, Row, table

from edge_vision.bundles.store import cache_dir
from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, SAME_OBJECT_IOU, best_iou, iou_matrix
from edge_vision.evaluate.condition_data import ConditionData, events_of
from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.metrics.delays import SOON_MS, event_delay
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, frame_of, reference_of
from edge_vision.evaluate.simulation import with_tracks
from edge_vision.offline.provenance import hash_of, machine, versions, write_json

EDGES = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 1.01)
INTERVAL = 3
TIMED_FRAMES = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--video", type=Path, default=cache_dir() / "video" / "vtest.avi")
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "low_score.json")
    options = parser.parse_args()
    condition, detector = clip_condition(options.video), ReferenceDetector()
    print("running the detector on each frame that is not cached ...", file=sys.stderr)
    reference = reference_of(condition, condition.n_frames, detector, lambda _: None)
    bands = found_again(reference)
    at_risk, announced = events_at_risk(condition, reference)
    not_announced = 1.0 - float(np.mean(_frames_with_announcement(reference)))
    plain_ms, with_low_score_ms = decoding_ms(condition, detector)
    rows = [
        Row(f"found again, score {low:g} to {high:g}", share, "", note=f"of {n}")
        for low, high, share, n in bands
    ]
    rows += [
        Row("events at risk", at_risk, ""),
        Row("of these announced", announced, ""),
        Row("frames without an announcement", not_announced, ""),
        Row("decoding without low-score detections", plain_ms, "ms"),
        Row("decoding with low-score detections", with_low_score_ms, "ms"),
    ]
    print(table(rows))
    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "found_again": bands}
    result |= {"at_risk": at_risk, "announced": announced, "not_announced": not_announced}
    result |= {"decoding_ms": plain_ms, "decoding_with_low_score_ms": with_low_score_ms}
    result |= {"hashes": {"video": hash_of(options.video), "model": detector.bundle.sha256}}
    write_json(options.out, result)
    print(options.out)
    return 0


def found_again(reference: Reference) -> list[tuple[float, float, float, int]]:
    """(lowest score, highest score, share, number) of detections, and of low-score ones that overlap none."""
    scores: list[float] = []
    again: list[bool] = []
    frames = zip(reference.detections, reference.low_score, reference.detections[1:], strict=False)
    for found, low_score, later in frames:
        apart = best_iou(low_score.xyxy_px, found.xyxy_px) <= SAME_BOX_IOU
        for one, used in ((found, np.ones(len(found), bool)), (low_score, apart)):
            same = iou_matrix(one.xyxy_px, later.xyxy_px) >= SAME_BOX_IOU
            same &= one.class_ids[:, None] == later.class_ids
            scores += one.scores[used].tolist()
            again += same.any(axis=1)[used].tolist()
    score, hit = np.array(scores), np.array(again)
    bands = []
    for low, high in pairwise(EDGES):
        inside = (score >= low) & (score < high)
        if inside.any():
            bands.append((low, high, float(hit[inside].mean()), int(inside.sum())))
    return bands


def events_at_risk(condition: Condition, reference: Reference) -> tuple[int, int]:
    """Events that an interval of INTERVAL frames may publish late, and how many of them were announced."""
    events, object_boxes, _ = events_of(condition, reference)
    data = ConditionData(reference, events, object_boxes)
    late = set()
    for phase in range(INTERVAL):
        inferred = np.arange(len(reference)) % INTERVAL == phase
        inferred[0] = True
        published = with_tracks(inferred, reference).detections
        late |= {
            number
            for number, event in enumerate(events)
            if not event_delay(event, published, data).within(SOON_MS)
        }
    announced = sum(
        all(
            _overlaps(reference.low_score[entry.first - 1], object_boxes[entry.first][entry.object_id])
            for entry in events[number].entries
        )
        for number in late
    )
    return len(late), announced


def _overlaps(low_score: Detections, box: np.ndarray) -> bool:
    return bool((best_iou(low_score.xyxy_px, box[None]) >= SAME_OBJECT_IOU).any())


def _frames_with_announcement(reference: Reference) -> list[bool]:
    """Whether a frame has a low-score detection of a class of this clip that overlaps no detection."""
    classes = np.unique(np.concatenate([found.class_ids for found in reference.detections]))
    announcing = []
    for found, low_score in zip(reference.detections, reference.low_score, strict=True):
        boxes = low_score.xyxy_px[np.isin(low_score.class_ids, classes)]
        announcing.append(bool((best_iou(boxes, found.xyxy_px) < SAME_OBJECT_IOU).any()))
    return announcing


def decoding_ms(condition: Condition, reference_detector: ReferenceDetector) -> tuple[float, float]:
    """Median decoding time, without and with low-score detections, interleaved."""
    frames = [frame_of(frame) for frame in islice(condition.frames(), TIMED_FRAMES)]
    detector = reference_detector.load()
    times: dict[bool, list[float]] = {False: [], True: []}
    for frame in frames * 3:
        for with_low_score in (False, True):
            result = detector.detect(frame, with_low_score)
            times[with_low_score].append(result.timing.postprocess_ms)
    return float(np.median(times[False])), float(np.median(times[True]))


if __name__ == "__main__":
    sys.exit(main())
