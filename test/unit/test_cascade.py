"""The cascade: which frames it accepts and rejects, and that it fails open."""

from __future__ import annotations

import numpy as np
import pytest
from model_cases import EFFICIENTNET, bundle_or_skip, video_frame
from stage_cases import color_bundle

from edge_vision.backends import open_session
from edge_vision.cascade.cascade import Cascade, CascadeConfig
from edge_vision.cascade.stages import CascadeStage, stage_from_bundle, wanted_class_ids
from edge_vision.core.detections import Classification
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.boxes import NO_REGIONS
from edge_vision.core.geometry.zones import Zones
from edge_vision.detect.classifier import Classifier

FRAME = Frame(np.zeros((40, 60, 3), np.uint8), 1, "camera")
REGIONS = np.array([[0, 0, 20, 20], [30, 10, 60, 40]], np.float32)
MS = 1_000_000
SOON, LATE = 10 * MS, 5000 * MS


class Scores:
    """A classifier that returns these scores: one row for the frame, or one for each region."""

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


def stage(classifier: Scores, accept=0.2, reject=None, share=0.0, wanted=(1, 2)) -> CascadeStage:
    """A stage that is never unsure unless `reject` is given."""
    return CascadeStage("a stage", classifier, wanted, accept if reject is None else reject, accept, share)


def warmed(*stages: CascadeStage, **config) -> Cascade:
    """A cascade that has accepted a frame at 0 ms."""
    cascade = Cascade(stages, CascadeConfig(**config))
    assert cascade.decide(FRAME, REGIONS, 0).reason == "refresh"
    return cascade


def test_without_a_stage_every_frame_is_accepted():
    cascade = Cascade()
    assert cascade.passes_through
    decision = cascade.decide(FRAME, REGIONS, 0)
    assert (decision.accepted, decision.reason, decision.score) == (True, "off", None)
    assert decision.regions is REGIONS


def test_a_disabled_cascade_accepts_without_classifying():
    scores = Scores([1.0, 0.0, 0.0])
    cascade = Cascade([stage(scores)], CascadeConfig(enabled=False))
    assert cascade.decide(FRAME, REGIONS, SOON).reason == "disabled"
    assert not scores.calls and not cascade.passes_through


@pytest.mark.parametrize(
    "row,reason",
    [([0.9, 0.05, 0.05], "unwanted"), ([0.7, 0.15, 0.15], "wanted"), ([0.75, 0.125, 0.125], "wanted")],
)
def test_the_summed_probability_of_the_wanted_classes_decides(row, reason):
    decision = warmed(stage(Scores(row, row), 0.25)).decide(FRAME, NO_REGIONS, SOON)
    assert (decision.reason, decision.accepted) == (reason, reason == "wanted")
    assert decision.score == pytest.approx(sum(row[1:]))


def test_one_accepted_region_accepts_the_frame():
    cascade = warmed(stage(Scores([1.0, 0.0, 0.0], [0.1, 0.9, 0.0]), 0.5))
    decision = cascade.decide(FRAME, REGIONS, SOON)
    assert (decision.reason, decision.score) == ("wanted", pytest.approx(0.9))


def test_it_classifies_regions_or_the_whole_frame():
    scores = Scores([1.0, 0.0, 0.0], [1.0, 0.0, 0.0])
    cascade = warmed(stage(scores))
    cascade.decide(FRAME, REGIONS, SOON)
    cascade.decide(FRAME, NO_REGIONS, SOON)
    cascade.config = CascadeConfig(classifier_input="frame")
    cascade.decide(FRAME, REGIONS, SOON)
    assert scores.calls == ["regions", "frame", "frame"]


def test_max_blind_ms_bounds_the_time_between_accepted_frames():
    cascade = warmed(stage(Scores([1.0, 0.0, 0.0])), max_blind_ms=200.0)
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
def test_a_classifier_that_fails_accepts_the_frame(scores):
    cascade = warmed(stage(scores))
    decision = cascade.decide(FRAME, REGIONS, SOON)
    assert (decision.accepted, decision.reason) == (True, "classifier_error")
    assert cascade.last_error is not None
    assert decision.regions is REGIONS


def test_a_classifier_that_recovers_clears_the_error():
    scores = Scores([1.0, 0.0, 0.0], error=RuntimeError("boom"))
    cascade = warmed(stage(scores))
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
def test_terms_select_labels_by_whole_words(wanted, ids):
    assert wanted_class_ids(LABELS, wanted) == ids


@pytest.mark.parametrize("term", ["zebra", "do", "ca", "", " ", ",", "dogs"])
def test_a_term_that_no_label_contains_is_named(term):
    with pytest.raises(ValueError, match=f"'{term}'"):
        wanted_class_ids(LABELS, ["cat", term])


# Several stages.

NO, MAYBE, YES = [0.9, 0.1, 0.0], [0.5, 0.5, 0.0], [0.1, 0.9, 0.0]


def decided(*rows_of_stages, regions=REGIONS, **config):
    """The decision of a cascade of stages that are unsure from 0.3 to 0.7, its classifiers, and itself."""
    scores = [Scores(*rows) for rows in rows_of_stages]
    cascade = warmed(*(stage(one, 0.7, 0.3) for one in scores), **config)
    return cascade.decide(FRAME, regions, SOON), scores, cascade


@pytest.mark.parametrize(
    "first,second,reason,number,crops",
    [
        ([NO, NO], [], "unwanted", 1, 2),
        ([NO, YES], [], "wanted", 1, 2),
        ([MAYBE, YES], [], "wanted", 1, 2),
        ([NO, MAYBE], [YES], "wanted", 2, 3),
        ([NO, MAYBE], [NO], "unwanted", 2, 3),
        ([MAYBE, MAYBE], [NO, NO], "unwanted", 2, 4),
        ([MAYBE, MAYBE], [NO, MAYBE], "unsure", 2, 4),
    ],
)
def test_crops_that_a_stage_is_unsure_about_go_to_the_next(first, second, reason, number, crops):
    decision, scores, cascade = decided(first, second)
    assert (decision.reason, decision.stage, decision.n_crops) == (reason, number, crops)
    assert decision.accepted == (reason != "unwanted")
    assert scores[1].calls == (["regions"] if second else []), "the second runs only if needed"
    counts = [one.counts for one in cascade.stages]
    assert [sum(one.values()) for one in counts] == [2, crops - 2]


def test_a_stage_unsure_about_the_whole_frame_passes_it_on():
    decision, scores, _ = decided([MAYBE], [NO], regions=NO_REGIONS)
    assert decision.reason == "unwanted" and [one.calls for one in scores] == [["frame"], ["frame"]]


def test_a_later_stage_that_fails_accepts_the_frame():
    scores = Scores(error=RuntimeError("boom"))
    cascade = warmed(stage(Scores(MAYBE, MAYBE), 0.7, 0.3), stage(scores, 0.7, 0.3))
    assert cascade.decide(FRAME, REGIONS, SOON).reason == "classifier_error"


def test_status_has_verdicts_times_and_reasons():
    decision, _, cascade = decided([NO, MAYBE], [NO])
    values = cascade.status()
    assert not decision.accepted and values["cascade.reason.unwanted"] == 1
    assert [values[f"stage1.{verdict}"] for verdict in ("accept", "reject", "unsure")] == [0, 1, 1]
    assert values["stage2.reject"] == 1 and values["stage1.crop_ms.p50"] > 0
    assert (values["stage1.reject_below"], values["stage1.accept_from"]) == (0.3, 0.7)
    cascade.reset_stats()
    assert cascade.status()["stage1.reject"] == 0 and "cascade.reason.unwanted" not in cascade.status()


@pytest.mark.parametrize("reject,accept", [(0.6, 0.5), (-0.1, 0.5), (0.5, 1.1), (float("nan"), 0.5)])
def test_thresholds_that_cross_or_leave_the_range_are_refused(reject, accept):
    with pytest.raises(ValueError, match="reject_below <= accept_from"):
        stage(Scores(), accept, reject)
    kept = stage(Scores(), 0.5, 0.4)
    with pytest.raises(ValueError, match="reject_below <= accept_from"):
        kept.set_thresholds(reject, accept)
    assert (kept.status()["reject_below"], kept.status()["accept_from"]) == (0.4, 0.5)


def test_a_stage_without_wanted_labels_is_refused():
    with pytest.raises(ValueError, match="wanted"):
        CascadeStage("a stage", Scores(), [], 0.2, 0.2)


# Unusual regions, and stages with crops of one size.


class ConstantScore:
    """Gives every crop the same score, and records the crops."""

    def __init__(self, wanted: float) -> None:
        self.row, self.crops = np.array([1.0 - wanted, wanted, 0.0], np.float32), []

    def classify(self, frame: Frame) -> Classification:
        raise AssertionError("a stage with crops never classifies the whole frame")

    def classify_regions(self, frame: Frame, xyxy_px: np.ndarray) -> list[Classification]:
        self.crops.append(xyxy_px)
        return [Classification(self.row)] * len(xyxy_px)


VGA = Frame(np.zeros((480, 640, 3), np.uint8), 1, "camera")
OUTSIDE = np.array([[700, 10, 800, 90], [-50, -50, -1, -1]], np.float32)


def classified(regions, wanted=0.1, **config):
    classifier = ConstantScore(wanted)
    return warmed(stage(classifier, share=0.5), **config).decide(VGA, regions, SOON), classifier


def test_five_hundred_regions_need_few_crops_or_are_accepted():
    rng = np.random.default_rng(4)
    corners = rng.uniform(0, 1, (500, 2)) * [600, 440]
    everywhere = np.concatenate([corners, corners + 20], axis=1).astype(np.float32)
    decision, classifier = classified(everywhere)
    assert (decision.reason, classifier.crops, decision.accepted) == ("crowded", [], True)
    in_a_corner = everywhere * 0.2
    decision, classifier = classified(in_a_corner, round_robin=0)
    assert decision.reason == "unwanted" and decision.n_crops == len(classifier.crops[0]) <= 4


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize(
    "regions",
    [OUTSIDE, np.full((1, 4), np.nan, np.float32), np.zeros((2, 3), np.float32), np.array([[9, 9, 9, 9.0]])],
    ids=["outside", "nan", "of another shape", "without area"],
)
def test_regions_that_cannot_be_classified_accept_the_frame(regions, share):
    cascade = warmed(stage(ConstantScore(0.0), share=share))
    decision = cascade.decide(VGA, regions, SOON)
    assert (decision.accepted, decision.reason) == (True, "classifier_error")
    assert cascade.last_error is not None


def test_regions_partly_outside_are_clipped():
    decision, classifier = classified(np.array([[-40, -40, 60, 60], [600, 400, 900, 900.0]]), round_robin=0)
    assert decision.reason == "unwanted"
    np.testing.assert_array_equal(classifier.crops[0], [[0, 0, 240, 240], [400, 240, 640, 480]])


def test_without_regions_tiles_cover_the_frame():
    decision, _ = classified(NO_REGIONS)
    assert decision.reason == "unwanted" and decision.n_crops == 6
    assert classified(NO_REGIONS, max_crops=5)[0].reason == "crowded"
    assert classified(REGIONS, classifier_input="frame")[0].n_crops == 6


def test_the_round_robin_covers_the_rest_of_the_frame():
    classifier = ConstantScore(0.1)
    cascade = warmed(stage(classifier, share=0.5))
    region = np.array([[10, 10, 50, 50.0]])
    for _ in range(12):
        assert cascade.decide(VGA, region, SOON).n_crops == 2
    seen = np.zeros((480, 640), bool)
    for left, top, right, bottom in np.concatenate(classifier.crops).astype(int):
        seen[top:bottom, left:right] = True
    assert seen.all()


def test_tiles_outside_the_zones_are_not_classified():
    for zone, n_tiles in (("exclude a 0,0 0.5,0 0.5,1 0,1", 4), ("exclude a 0,0 1,0 1,1 0,1", 6)):
        classifier = ConstantScore(0.1)
        cascade = warmed(stage(classifier, share=0.5))
        cascade.zones = Zones.parse([zone])
        assert cascade.decide(VGA, NO_REGIONS, SOON).n_crops == n_tiles, "6 where nothing would be left"
        region = np.array([[410, 10, 450, 50.0]])
        for _ in range(12):
            cascade.decide(VGA, region, SOON)
        lefts = {crop[0] for crops in classifier.crops[1:] for crop in crops.tolist()}
        assert (0.0 in lefts) == (n_tiles == 6)


# Settings of the bundle and of the parameters.


@pytest.mark.parametrize(
    "parameters,ids,reject,accept",
    [
        ({}, [0], 0.3, 0.6),
        ({"wanted_labels": ["blue", "green"]}, [1, 2], 0.3, 0.6),
        ({"score_threshold": 0.5}, [0], 0.3, 0.5),
        ({"score_threshold": 0.9, "reject_threshold": 0.0}, [0], 0.0, 0.9),
    ],
)
def test_parameters_override_the_settings_of_the_bundle(tmp_path, parameters, ids, reject, accept):
    made = stage_from_bundle(color_bundle(tmp_path), Scores(), **parameters)
    assert (made.name, made.crop_share, made._wanted_ids.tolist()) == ("color", 0.5, ids)
    assert (made.status()["reject_below"], made.status()["accept_from"]) == (reject, accept)


def test_an_unfitted_classifier_needs_labels_and_is_never_unsure(tmp_path):
    bundle = color_bundle(tmp_path, stage=None)
    with pytest.raises(ValueError, match="color was not fitted for a cascade and there are no wanted_labels"):
        stage_from_bundle(bundle, Scores())
    made = stage_from_bundle(bundle, Scores(), ["red"])
    assert (made.status()["reject_below"], made.status()["accept_from"], made.crop_share) == (0.2, 0.2, 0.0)


def test_a_threshold_that_crosses_the_one_of_the_bundle_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"0\.3 and 0\.1"):
        stage_from_bundle(color_bundle(tmp_path), Scores(), score_threshold=0.1)


def test_a_real_classifier_rejects_a_wall_and_scores_a_street():
    bundle = bundle_or_skip(EFFICIENTNET)
    session, _ = open_session(bundle, "onnxruntime")
    wanted = wanted_class_ids(bundle.labels, ["bicycle", "bike", "moped", "motor scooter"])
    real = CascadeStage(bundle.name, Classifier.from_bundle(bundle, session), wanted, 0.2, 0.2)
    cascade = Cascade([real], CascadeConfig(max_blind_ms=60000.0))
    frame = video_frame("bikes.mp4", 100)
    cascade.decide(frame, NO_REGIONS, 0)
    wall = Frame(np.full((240, 320, 3), 128, np.uint8), 1, "camera")
    assert cascade.decide(wall, NO_REGIONS, SOON).reason == "unwanted"
    seen = cascade.decide(frame, np.array([[0, 0, 640, 272]], np.float32), SOON)
    assert seen.score is not None and 0 <= seen.score <= 1
    session.close()
