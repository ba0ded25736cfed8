"""The cascade: what it accepts, what it rejects, and that it fails open."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import EFFICIENTNET, bundle_or_skip, video_frame

from edge_vision.backends import open_session
from edge_vision.core.cascade import Cascade, CascadeConfig, wanted_class_ids
from edge_vision.core.classifier import Classifier
from edge_vision.core.detections import Classification
from edge_vision.core.frame import Frame
from edge_vision.core.gate import NO_REGIONS

FRAME = Frame(np.zeros((40, 60, 3), np.uint8), 1, "camera")
REGIONS = np.array([[0, 0, 20, 20], [30, 10, 60, 40]], np.float32)
MS = 1_000_000
SOON, LATE = 10 * MS, 5000 * MS


class Scores:
    """A classifier that gives these scores: one row for the frame, or one for each region."""

    def __init__(self, *rows: list[float], error: Exception | None = None) -> None:
        self.rows, self.error, self.calls = rows, error, []

    def classify(self, frame: Frame) -> Classification:
        return self._answer("frame", 1)[0]

    def classify_regions(self, frame: Frame, xyxy_px: np.ndarray) -> list[Classification]:
        return self._answer("regions", len(xyxy_px))

    def _answer(self, what: str, n: int) -> list[Classification]:
        self.calls.append(what)
        if self.error:
            raise self.error
        return [Classification(np.array(row, np.float32)) for row in self.rows[:n]]


def warmed(classifier: Scores, wanted=(1, 2), **config) -> Cascade:
    """A cascade that accepted a frame at 0 ms."""
    cascade = Cascade(classifier, wanted, CascadeConfig(**config))
    assert cascade.decide(FRAME, REGIONS, 0).reason == "refresh"
    return cascade


def test_without_a_classifier_all_pass():
    cascade = Cascade()
    assert cascade.passes_through
    decision = cascade.decide(FRAME, REGIONS, 0)
    assert (decision.accepted, decision.reason, decision.score) == (True, "off", None)
    assert decision.regions is REGIONS


def test_disabled_all_pass_unseen():
    scores = Scores([1.0, 0.0, 0.0])
    cascade = Cascade(scores, [1], CascadeConfig(enabled=False))
    assert cascade.decide(FRAME, REGIONS, SOON).reason == "disabled"
    assert not scores.calls and not cascade.passes_through


@pytest.mark.parametrize(
    "row,reason",
    [([0.9, 0.05, 0.05], "unwanted"), ([0.7, 0.15, 0.15], "wanted"), ([0.75, 0.125, 0.125], "wanted")],
)
def test_the_wanted_classes_count_together_and_reaching_is_enough(row, reason):
    decision = warmed(Scores(row, row), score_threshold=0.25).decide(FRAME, NO_REGIONS, SOON)
    assert (decision.reason, decision.accepted) == (reason, reason == "wanted")
    assert decision.score == pytest.approx(sum(row[1:]))


def test_one_good_region_is_enough():
    cascade = warmed(Scores([1.0, 0.0, 0.0], [0.1, 0.9, 0.0]), score_threshold=0.5)
    decision = cascade.decide(FRAME, REGIONS, SOON)
    assert (decision.reason, decision.score) == ("wanted", pytest.approx(0.9))


def test_what_it_looks_at():
    scores = Scores([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    cascade = warmed(scores)
    cascade.decide(FRAME, REGIONS, SOON)
    cascade.decide(FRAME, NO_REGIONS, SOON)
    cascade.config = CascadeConfig(look_at="frame")
    cascade.decide(FRAME, REGIONS, SOON)
    assert scores.calls == ["regions", "frame", "frame"]


def test_never_blind_for_longer_than_allowed():
    cascade = warmed(Scores([1.0, 0.0, 0.0]), max_blind_ms=200.0)
    accepted = [at for at in range(33, 3000, 33) if cascade.decide(FRAME, NO_REGIONS, at * MS).accepted]
    gaps = np.diff([0, *accepted])
    assert accepted and gaps.max() <= 200 + 33


NAN = float("nan")


@pytest.mark.parametrize(
    "scores",
    [
        Scores(error=RuntimeError("boom")),
        Scores(error=MemoryError()),
        Scores([NAN, NAN, NAN], [NAN, NAN, NAN]),
        Scores([1.0, 0.0, 0.0], [1.0, NAN, 0.0]),
        Scores([1.0, NAN, 0.0], [1.0, 0.0, 0.0]),
        Scores([1.0, float("-inf"), 0.0], [1.0, 0.0, 0.0]),
        Scores(),
        Scores([1.0], [1.0]),
    ],
    ids=["error", "memory", "nan", "nan in the last", "nan in the first", "-inf", "none", "too few"],
)
def test_it_fails_open(scores):
    cascade = warmed(scores)
    decision = cascade.decide(FRAME, REGIONS, SOON)
    assert (decision.accepted, decision.reason) == (True, "classifier_error")
    assert cascade.last_error is not None
    assert decision.regions is REGIONS


def test_a_classifier_that_recovers_is_no_longer_told_as_failing():
    scores = Scores([1.0, 0.0, 0.0], error=RuntimeError("boom"))
    cascade = warmed(scores)
    assert cascade.decide(FRAME, NO_REGIONS, SOON).reason == "classifier_error"
    scores.error = None
    assert cascade.decide(FRAME, NO_REGIONS, SOON).reason == "unwanted"
    assert cascade.last_error is None


LABELS = [
    "tench, Tinca tinca",
    "mountain bike, all-terrain bike, off-roader",
    "dogsled, dog sled",
    "Dog",
    "cat",
]


@pytest.mark.parametrize(
    "wanted,ids",
    [
        (["dog"], [2, 3]),
        (["DOG"], [2, 3]),
        (["bike"], [1]),
        (["terrain"], [1]),
        (["all-terrain bike"], [1]),
        (["mountain bike, all-terrain bike, off-roader"], [1]),
        (["bike off"], [1]),
        (["tench", "cat", "tinca"], [0, 4]),
        (["cat", "cat"], [4]),
        ([" cat "], [4]),
        ([], []),
    ],
)
def test_wanted_labels(wanted, ids):
    assert wanted_class_ids(LABELS, wanted) == ids


@pytest.mark.parametrize("word", ["zebra", "do", "ca", "", " ", ",", "dogs"])
def test_a_word_that_fits_no_label_is_named(word):
    with pytest.raises(ValueError, match=f"'{word}'"):
        wanted_class_ids(LABELS, ["cat", word])


def test_the_real_classifier_tells_a_bicycle_from_a_wall():
    bundle = bundle_or_skip(EFFICIENTNET)
    session, _ = open_session(bundle, "onnxruntime")
    wanted = wanted_class_ids(bundle.labels, ["bicycle", "bike", "moped", "motor scooter"])
    cascade = Cascade(Classifier.from_bundle(bundle, session), wanted, CascadeConfig(max_blind_ms=60000.0))
    frame = video_frame("bikes.mp4", 100)
    cascade.decide(frame, NO_REGIONS, 0)
    wall = Frame(np.full((240, 320, 3), 128, np.uint8), 1, "camera")
    assert cascade.decide(wall, NO_REGIONS, SOON).reason == "unwanted"
    seen = cascade.decide(frame, np.array([[0, 0, 640, 272]], np.float32), SOON)
    assert seen.score is not None and 0 <= seen.score <= 1
    session.close()
