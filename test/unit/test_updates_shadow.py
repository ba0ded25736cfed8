"""The comparison of two models: what a miss is, and when the test is sure."""

from __future__ import annotations

import numpy as np
import pytest

from edge_vision.core.detections import Detections
from edge_vision.updates.shadow import MAX_FRAMES, ShadowFrame, ShadowTest, compare

LABELS = ("person", "bicycle")
BOX = (10.0, 10.0, 60.0, 110.0)


def found(*objects: tuple[tuple[float, ...], float, int]) -> Detections:
    boxes, scores, class_ids = zip(*objects, strict=True) if objects else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(class_ids, np.int32),
    )


OLD = found((BOX, 0.9, 0))


@pytest.mark.parametrize(
    ("old", "new", "new_labels", "expected"),
    [
        (OLD, OLD, LABELS, (1, 0)),
        (OLD, found(), LABELS, (1, 1)),
        (OLD, found((BOX, 0.3, 0)), LABELS, (1, 0)),
        (OLD, found((BOX, 0.9, 1)), LABELS, (1, 1)),
        (OLD, found((BOX, 0.9, 1)), ("bicycle", "person"), (1, 0)),
        (OLD, found((BOX, 0.9, 7)), LABELS, (1, 1)),
        (OLD, found(((200.0, 10.0, 260.0, 110.0), 0.9, 0)), LABELS, (1, 1)),
        (found((BOX, 0.55, 0)), found(), LABELS, (0, 0)),
        (found(), OLD, LABELS, (0, 0)),
        (found(), found(), LABELS, (0, 0)),
    ],
)
def test_a_miss_is_a_sure_object_without_a_box_of_its_label(old, new, new_labels, expected) -> None:
    one = compare(old, LABELS, new, new_labels, 0.5)
    assert (one.objects, one.missed) == expected and not one.flooded


def test_far_more_objects_are_a_flood() -> None:
    assert compare(OLD, LABELS, found(*[(BOX, 0.9, 0)] * 9), LABELS, 0.5).flooded
    assert not compare(OLD, LABELS, found(*[(BOX, 0.9, 0)] * 8), LABELS, 0.5).flooded


def run(comparisons) -> tuple[bool, int, str]:
    test = ShadowTest()
    for one in comparisons:
        if verdict := test.add(one):
            assert verdict.evidence["frames"] == test.frames
            return verdict.commit, test.frames, verdict.reason
    raise AssertionError("no verdict")


def test_an_equal_model_passes_within_200_frames_and_a_blind_one_fails_soon() -> None:
    commit, frames, _ = run(ShadowFrame(2, 0, False) for _ in range(MAX_FRAMES))
    assert commit and frames <= 200
    commit, frames, reason = run(ShadowFrame(2, 2, False) for _ in range(MAX_FRAMES))
    assert not commit and frames <= 10 and "misses or labels differently" in reason


def test_frames_without_objects_say_nothing() -> None:
    commit, frames, reason = run(ShadowFrame(0, 0, False) for _ in range(MAX_FRAMES))
    assert not commit and (frames, reason) == (
        MAX_FRAMES,
        "no decision after 2000 frames (0 of 0 frames with a miss)",
    )


def test_a_flood_fails() -> None:
    commit, _, reason = run(ShadowFrame(1, 0, n % 2 == 0) for n in range(MAX_FRAMES))
    assert not commit and reason.startswith("flooding")


@pytest.mark.parametrize(("miss_rate", "rejected"), [(0.03, False), (0.3, True)])
def test_errors_in_100_runs_are_as_rare_as_promised(miss_rate: float, rejected: bool) -> None:
    random = np.random.default_rng(3)
    wrong = 0
    for _ in range(100):
        commit, _, reason = run(
            ShadowFrame(1, int(random.random() < miss_rate), False) for _ in range(MAX_FRAMES)
        )
        wrong += commit == rejected and "no decision" not in reason
    assert wrong <= 5
