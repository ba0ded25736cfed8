"""HOTA: cases worked by hand, and the assignment against all permutations."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from edge_vision.core.detections import Detections
from edge_vision.evaluate.accuracy.hota import assign, hota, tracked_frames
from edge_vision.evaluate.accuracy.labels import LabelledImage

LEFT, RIGHT, LOW = (0, 0, 10, 10), (100, 0, 110, 10), (0, 100, 10, 110)


def labels(*rows: tuple) -> LabelledImage:
    """rows: (box, track id, ignored)."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    n, ids = len(rows), np.array([row[1] for row in rows], np.int64)
    ignored = np.array([row[2] for row in rows], bool)
    return LabelledImage("a", Path("a"), 0, None, boxes, np.zeros(n, np.int32), ignored, np.ones(n), ids)


def published(*rows: tuple, class_id: int = 0) -> tuple[Detections, np.ndarray]:
    """rows: (box, track id)."""
    boxes = np.array([row[0] for row in rows], np.float32).reshape(-1, 4)
    ids = np.array([row[1] for row in rows], np.int64)
    return Detections(boxes, np.ones(len(rows), np.float32), np.full(len(rows), class_id, np.int32)), ids


def test_perfect_tracks() -> None:
    frame = (labels((LEFT, 1, False), (RIGHT, 2, False)), *published((LEFT, 7), (RIGHT, 8)))
    result = hota(tracked_frames([[frame, frame]]))
    assert (result.hota, result.det_a, result.ass_a, result.hota50) == (1.0, 1.0, 1.0, 1.0)


def test_an_identity_that_changes_half_way() -> None:
    """One object on four frames, found on each, with another id from the third on. DetA = 1. Each match has
    2 frames of 4 + 2 - 2 in common, so AssA = 0.5."""
    seen = labels((LEFT, 1, False))
    sequence = [(seen, *published((LEFT, 7 if number < 2 else 9))) for number in range(4)]
    result = hota(tracked_frames([sequence]))
    assert (result.det_a, result.ass_a) == (1.0, 0.5)
    assert result.hota == pytest.approx(np.sqrt(0.5), abs=1e-4)


def test_misses_and_false_tracks() -> None:
    """Two objects on two frames; one is found on both, the other never, and a false box appears once:
    TP 2, FN 2, FP 1, DetA 2/5; the found one keeps its id: AssA 1."""
    seen = labels((LEFT, 1, False), (RIGHT, 2, False))
    sequence = [(seen, *published((LEFT, 7), (LOW, 8))), (seen, *published((LEFT, 7)))]
    result = hota(tracked_frames([sequence]))
    assert (result.det_a, result.ass_a) == (pytest.approx(0.4), 1.0)
    assert result.hota == pytest.approx(np.sqrt(0.4), abs=1e-4)


def test_a_loose_box_counts_up_to_its_overlap() -> None:
    """IoU 0.6 reaches 0.05 to 0.60, 12 of the 19 thresholds."""
    frame = (labels((LEFT, 1, False)), *published(((0, 0, 10, 6), 7)))
    result = hota(tracked_frames([[frame]]))
    assert result.hota == pytest.approx(12 / 19, abs=1e-4) and result.hota50 == 1.0


def test_ids_of_two_sequences_are_different_objects() -> None:
    frame = (labels((LEFT, 1, False)), *published((LEFT, 7)))
    other = (labels((LEFT, 1, False)), *published((LEFT, 9)))
    assert hota(tracked_frames([[frame], [other]])).ass_a == 1.0
    assert hota(tracked_frames([[frame, other]])).ass_a == 0.5


def test_boxes_within_ignored_regions_and_other_classes() -> None:
    region = ((90, 0, 200, 50), 0, True)
    frame = (labels((LEFT, 1, False), region), *published((LEFT, 7), (RIGHT, 8)))
    assert hota(tracked_frames([[frame]])).hota == 1.0
    wrong = (labels((LEFT, 1, False), region), *published((LEFT, 7), class_id=1))
    assert hota(tracked_frames([[wrong]])).hota == 0.0


def test_nothing_published_or_labelled() -> None:
    nothing = published()
    assert hota(tracked_frames([[(labels((LEFT, 1, False)), *nothing)]])).hota == 0.0
    assert hota(tracked_frames([])).hota == 0.0


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 4), (5, 3), (0, 3), (2, 0)])
def test_the_assignment_is_the_best_of_all(shape: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(shape))
    for _ in range(30):
        gain = np.round(random.random(shape), 1)
        rows, columns = assign(gain)
        assert len(rows) == len(set(rows)) == len(set(columns)) == min(shape)
        small = gain if shape[0] <= shape[1] else gain.T
        best = max(
            (
                sum(small[i, j] for i, j in enumerate(one))
                for one in permutations(range(max(shape)), min(shape))
            ),
            default=0.0,
        )
        assert gain[rows, columns].sum() == pytest.approx(best)
