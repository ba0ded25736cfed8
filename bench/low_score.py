#!/usr/bin/env python3
"""What a detector's scores say of the next frame. `make bench-low-score`. Prints a table, and writes
out/bench/low_score.json.

found again     of what scored so, the share that is found on the next frame (same class, IoU 0.5)
at risk         entries that a look at every third frame tells of late, for one of its three ways to begin
hinted          of these, all of whose objects had a hint on the frame before, at their place (IoU 0.3)
without a hint  frames without one, of a class that is found in this clip and on nothing that is found
decoding        what low-score detections cost the detector on a frame
"""

from __future__ import annotations

import argparse
import sys
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import REPO, Row, table

from edge_vision.bundles.store import cache_dir
from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import SAME_BOX_IOU, SAME_OBJECT_IOU, best_iou, iou_matrix
from edge_vision.diagnostics.provenance import hash_of, machine, versions, write_json
from edge_vision.evaluate.condition_data import events_of
from edge_vision.evaluate.metrics.delays import SOON_MS, event_delay
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import Reference, ReferenceDetector, frame_of, reference_of
from edge_vision.evaluate.simulation import with_tracker

EDGES = (0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 1.01)
INTERVAL = 3
TIMED = 60


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--video", type=Path, default=cache_dir() / "video" / "vtest.avi")
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "low_score.json")
    options = parser.parse_args()
    condition, detector = clip_condition(options.video), ReferenceDetector()
    print("the detector looks at each frame that is not in the cache ...", file=sys.stderr)
    reference = reference_of(condition, condition.n_frames, detector, lambda phase: None)
    again = found_again(reference)
    risky, hinted = at_risk(condition, reference)
    unhinted = 1.0 - np.mean([_low_score(reference, at) for at in range(len(reference))])
    plain_ms, with_ms = decoding_ms(condition, detector)
    rows = [
        Row(f"found again, score {low:g} to {high:g}", share, "", note=f"of {n}")
        for low, high, share, n in again
    ]
    rows += [
        Row("entries at risk", risky, ""),
        Row("of these hinted", hinted, ""),
        Row("frames without a hint", float(unhinted), ""),
        Row("decoding without low_score", plain_ms, "ms"),
        Row("decoding with low_score", with_ms, "ms"),
    ]
    print(table(rows))
    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "found_again": again}
    result |= {"at_risk": risky, "hinted": hinted, "without_a_hint": float(unhinted)}
    result |= {"decoding_ms": plain_ms, "decoding_with_hints_ms": with_ms}
    result |= {"hashes": {"video": hash_of(options.video), "model": detector.bundle.sha256}}
    write_json(options.out, result)
    print(options.out)
    return 0


def found_again(reference: Reference) -> list[tuple[float, float, float, int]]:
    """(lowest score, highest score, share, number) of detections, and of low-score ones beside them."""
    scores, again = [], []
    for at in range(len(reference) - 1):
        found, low_score, later = (
            reference.detections[at],
            reference.low_score[at],
            reference.detections[at + 1],
        )
        beside = best_iou(low_score.xyxy_px, found.xyxy_px) <= SAME_BOX_IOU
        for one, use in ((found, np.ones(len(found), bool)), (low_score, beside)):
            same = iou_matrix(one.xyxy_px, later.xyxy_px) >= SAME_BOX_IOU
            same &= one.class_ids[:, None] == later.class_ids
            scores += one.scores[use].tolist()
            again += same.any(axis=1)[use].tolist()
    score, seen = np.array(scores), np.array(again)
    bands = []
    for low, high in pairwise(EDGES):
        inside = (score >= low) & (score < high)
        if inside.any():
            bands.append((low, high, float(seen[inside].mean()), int(inside.sum())))
    return bands


def at_risk(condition: Any, reference: Reference) -> tuple[int, int]:
    """Entries that a look at every third frame may tell of late, and how many of them had a hint."""
    events, truth, _ = events_of(condition, reference)
    late = set()
    for begin in range(INTERVAL):
        passed = np.arange(len(reference)) % INTERVAL == begin
        passed[0] = True
        told = with_tracker(passed, reference).boxes
        late |= {
            number
            for number, event in enumerate(events)
            if not event_delay(event, told, truth, reference.stamps_ns).within(SOON_MS)
        }
    hinted = 0
    for number in late:
        places = [(entry.first - 1, truth[entry.first][entry.object_id]) for entry in events[number].entries]
        hinted += all(_is_near(reference.low_score[at], box) for at, box in places)
    return len(late), hinted


def _is_near(low_score: Detections, box: np.ndarray) -> bool:
    return bool((best_iou(low_score.xyxy_px, box[None]) >= SAME_OBJECT_IOU).any())


def _low_score(reference: Reference, at: int) -> bool:
    usual = {class_id for found in reference.detections for class_id in found.class_ids.tolist()}
    found, low_score = reference.detections[at], reference.low_score[at]
    known = np.array([class_id in usual for class_id in low_score.class_ids.tolist()], bool)
    return bool((best_iou(low_score.xyxy_px[known], found.xyxy_px) < SAME_OBJECT_IOU).any())


def decoding_ms(condition: Any, detector: ReferenceDetector) -> tuple[float, float]:
    """Median time of decoding, without and with low_score, in turns."""
    scenes = list(islice(condition.frames(), TIMED))
    detector.detect(scenes[0])
    looker = detector._detector
    assert looker is not None
    times: dict[bool, list[float]] = {False: [], True: []}
    for scene in scenes * 3:
        for with_low_score in (False, True):
            result = looker.detect(frame_of(scene), with_low_score)
            times[with_low_score].append(result.timing.postprocess_ms)
    return float(np.median(times[False])), float(np.median(times[True]))


if __name__ == "__main__":
    sys.exit(main())
