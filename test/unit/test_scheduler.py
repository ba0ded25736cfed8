"""The schedule keeps its bounds at any frame rate, infers where losses are, and skips still scenes."""

from __future__ import annotations

from itertools import pairwise

import cv2
import numpy as np
import pytest
from box_cases import boxes
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.core.geometry.homography import IDENTITY
from edge_vision.gate.frame_gate import FrameGate, GateConfig
from edge_vision.gate.image_evidence import Evidence, ImageEvidence
from edge_vision.gate.loss_model import LossModel, ScoreNoise
from edge_vision.gate.scheduler import DELAY_TOLERANCE, SCHEDULED_SKIPS, Promise, Scheduler

CHANGED = Evidence(0.1, False, IDENTITY)
UNCHANGED = Evidence(0.0, False, IDENTITY)
CUT = Evidence(0.9, True, None)
NOTHING = Detections.empty()
START_NS = 10**9


def scored(*scores: float) -> Detections:
    """Boxes beside each other with these scores."""
    found = boxes(*[(100 * i, 0, 100 * i + 50, 80) for i in range(len(scores))])
    return Detections(found.xyxy_px, np.array(scores, np.float32), found.class_ids)


def texture(seed: int, size: tuple[int, int] = (180, 320)) -> np.ndarray:
    """A smooth random picture, which a shift moves measurably."""
    noise = np.random.default_rng(seed).integers(0, 256, size, np.uint8)
    return np.asarray(cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 4), None, 20, 230, cv2.NORM_MINMAX))


def inferred_stamps(
    periods_ms: list[float], promise: Promise, evidence: Evidence, found: Detections = NOTHING
) -> tuple[list[int], list[int]]:
    """All stamps of a sequence of frames, and those of its inferred frames; results come at once."""
    scheduler, stamps, inferred = Scheduler(), [], []
    stamp_ns = START_NS
    for period_ms in [0.0, *periods_ms]:
        stamp_ns += round(period_ms * 1e6)
        stamps.append(stamp_ns)
        if scheduler.decide(promise, evidence, stamp_ns) not in SCHEDULED_SKIPS:
            scheduler.inferring(promise, stamp_ns, cut=False)
            scheduler.observe(stamp_ns, found, NOTHING, found)
            inferred.append(stamp_ns)
    return stamps, inferred


# The schedule.
@given(
    rate_hz=st.sampled_from([1, 5, 10, 15, 24, 29.97, 30, 50, 60, 240]),
    max_delay_ms=st.sampled_from([40.0, 100.0, 150.0, 500.0]),
    n_objects=st.integers(0, 20),
)
@settings(max_examples=60, deadline=None)
def test_an_object_waits_no_longer_than_promised(rate_hz: float, max_delay_ms: float, n_objects: int) -> None:
    promise = Promise(max_delay_ms=max_delay_ms)
    stamps, inferred = inferred_stamps([1e3 / rate_hz] * 60, promise, CHANGED, scored(*[0.9] * n_objects))
    assert inferred[0] == stamps[0]
    for before, after in pairwise(inferred):
        first_skipped = min(stamp for stamp in stamps if stamp > before)
        assert after == first_skipped or (after - first_skipped) / 1e6 <= max_delay_ms * DELAY_TOLERANCE


def test_sure_objects_that_stay_in_place_are_inferred_at_the_promised_interval() -> None:
    _, inferred = inferred_stamps([1e3 / 30] * 120, Promise(), CHANGED, scored(0.95, 0.95))
    gaps = np.diff(inferred[5:]) / 1e6
    assert gaps.max() == pytest.approx(4e3 / 30, abs=0.01), "at 30 Hz, 100 ms allow every fourth frame"
    assert np.median(gaps) == pytest.approx(4e3 / 30, abs=0.01)


def test_objects_that_leave_their_predictions_are_inferred_more_often() -> None:
    promise, counts, found = Promise(), [], scored(0.95, 0.95)
    for predicted in (boxes((500, 500, 540, 560), (700, 500, 740, 560)), found):
        scheduler, count = Scheduler(), 0
        for number in range(200):
            stamp_ns = START_NS + number * 33_333_333
            if scheduler.decide(promise, CHANGED, stamp_ns) not in SCHEDULED_SKIPS:
                scheduler.inferring(promise, stamp_ns, cut=False)
                scheduler.observe(stamp_ns, found, NOTHING, predicted)
                count += 1
        counts.append(count)
    assert counts[0] > 1.5 * counts[1]


def test_a_still_scene_is_inferred_once_in_max_blind_ms() -> None:
    stamps, inferred = inferred_stamps([100.0] * 60, Promise(max_blind_ms=2000.0), UNCHANGED, scored(0.95))
    assert np.diff(inferred).tolist() == [2_000_000_000] * 3
    assert len(stamps) == 61


@pytest.mark.parametrize("rate_hz,max_blind_ms", [(5, 500.0), (5, 250.0), (1, 1500.0), (30, 2000.0)])
def test_a_still_scene_is_never_blind_for_longer(rate_hz: int, max_blind_ms: float) -> None:
    promise = Promise(max_blind_ms=max_blind_ms)
    _, inferred = inferred_stamps([1e3 / rate_hz] * 100, promise, UNCHANGED)
    assert np.diff(inferred).max() / 1e6 <= max_blind_ms


@pytest.mark.parametrize(
    "periods_ms,late",
    [
        ([5, 61] * 100, 0),
        ([1, 1, 1, 130] * 50, 3),
        ([33.3, 33.3, 33.3, 66.7] * 50, 3),
        ([33.3] * 60 + [200] * 40, 1),
        ([33.3, 66.7, 33.3] * 60, 3),
    ],
)
def test_bursts_and_new_rates_break_the_promise_only_until_they_are_known(
    periods_ms: list[float], late: int
) -> None:
    stamps, inferred = inferred_stamps(periods_ms, Promise(min_fidelity=0.0), CHANGED)
    following = dict(pairwise(stamps))
    waits_ms = [(after - following[before]) / 1e6 for before, after in pairwise(inferred)]
    assert sum(wait_ms > 104.0 for wait_ms in waits_ms) <= late


def test_a_cut_is_inferred_at_once() -> None:
    scheduler, promise = Scheduler(), Promise()
    scheduler.decide(promise, CHANGED, START_NS)
    scheduler.inferring(promise, START_NS, cut=False)
    scheduler.observe(START_NS, scored(0.95), NOTHING, None)
    assert scheduler.decide(promise, CUT, START_NS + 10_000_000) == "cut"


def test_results_that_never_come_and_stamps_that_stand_still_do_no_harm() -> None:
    scheduler, promise = Scheduler(), Promise()
    for _ in range(100):
        if scheduler.decide(promise, CHANGED, START_NS) not in SCHEDULED_SKIPS:
            scheduler.inferring(promise, START_NS, cut=False)
    scheduler.observe(12345, scored(0.9), None, None)
    assert all(np.isfinite(value) for value in scheduler.status().values())


# The loss model.
def test_nothing_is_lost_where_nothing_is() -> None:
    model = LossModel()
    model.observe(NOTHING, NOTHING, None, 0, 0.0)
    assert model.loss(5) == model.still_loss() == model.urgency(5) == 0.0


def test_drift_is_learned_from_predictions_that_fail() -> None:
    good, bad = LossModel(), LossModel()
    for _ in range(20):
        good.observe(scored(0.95, 0.95), NOTHING, scored(0.95, 0.95), 3, 0.1)
        elsewhere = boxes((500, 500, 540, 560), (700, 500, 740, 560))
        bad.observe(scored(0.95, 0.95), NOTHING, elsewhere, 3, 0.1)
    assert good.drift < 0.03 < 0.3 < bad.drift


def test_the_noise_ceiling_falls_with_scores_near_the_threshold() -> None:
    sure, doubtful = LossModel(), LossModel()
    for _ in range(50):
        sure.observe(scored(0.95, 0.9), NOTHING, None, 1, 0.03)
        doubtful.observe(scored(0.52, 0.55), scored(0.48, 0.4), None, 1, 0.03)
    assert doubtful.ceiling < 0.75 < 0.97 < sure.ceiling <= 1.0
    # Low scores of which the same are found each time are less noisy than they look.
    before = doubtful.ceiling
    for _ in range(50):
        doubtful.observe(scored(0.52, 0.55), scored(0.48, 0.4), scored(0.52, 0.55), 1, 0.03)
    assert before + 0.1 < doubtful.ceiling <= 1.0


@pytest.mark.parametrize("threshold", [0.25, 0.4, 0.7])
def test_the_threshold_of_the_detector_is_learned(threshold: float) -> None:
    noise, rng = ScoreNoise(), np.random.default_rng(7)
    for _ in range(30):
        scores = rng.uniform(threshold / 2, 1.0, 6)
        noise.observe(scored(*scores[scores >= threshold]), scored(*scores[scores < threshold]))
    assert noise.threshold == pytest.approx(threshold, abs=0.05)
    # A new threshold, set while the detector runs.
    for _ in range(30):
        scores = rng.uniform(0.25, 1.0, 6)
        noise.observe(scored(*scores[scores >= 0.5]), scored(*scores[scores < 0.5]))
    assert noise.threshold == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("sd", [0.03, 0.1])
def test_the_deviation_of_scores_is_learned(sd: float) -> None:
    noise, rng = ScoreNoise(), np.random.default_rng(8)
    for _ in range(200):
        scores = 0.5 + rng.normal(0.0, sd, 4)
        detections = scored(*scores)
        noise.observe(detections.select(scores >= 0.5), detections.select(scores < 0.5))
    # Only scores near the threshold are compared, which cuts the tails of the larger one.
    assert noise.sd == pytest.approx(sd, rel=0.2)


@pytest.mark.parametrize("score", [np.inf, -np.inf])
def test_a_score_without_bounds_does_not_spoil_what_was_learned(score: float) -> None:
    noise = ScoreNoise()
    noise.observe(scored(0.52), scored(0.45))
    noise.observe(scored(score), scored(0.45))
    noise.observe(scored(0.52), scored(score))
    assert 0.0 <= noise.threshold <= 1.0 and 0.0 < noise.sd < 1.0


@given(st.lists(st.floats(0.05, 1.0), max_size=8), st.integers(1, 40), st.floats(0.0, 100.0))
@settings(max_examples=100, deadline=None)
def test_the_loss_model_stays_finite(scores: list[float], frames: int, seconds: float) -> None:
    model = LossModel()
    for predicted in (None, scored(0.9), scored(*scores)):
        model.observe(scored(*scores), None, predicted, frames, seconds)
    values = (model.loss(3), model.urgency(3), model.ceiling, model.drift, model.boxes)
    assert np.isfinite(values).all() and min(values) >= 0.0


# Image evidence.
def test_noise_is_no_change_and_an_object_is() -> None:
    evidence, scene = ImageEvidence(), texture(1)
    noise = np.random.default_rng(2)
    noisy = np.clip(scene + noise.normal(0, 2, scene.shape), 0, 255).astype(np.uint8)
    assert evidence.observe(scene).changed_share == 1.0, "there is nothing to compare with yet"
    evidence.mark_inferred()
    assert evidence.observe(noisy).unchanged
    noisy[60:75, 100:110] = 255 - noisy[60:75, 100:110]
    assert not evidence.observe(noisy).unchanged


@pytest.mark.parametrize("shift", [(3, 0), (0, -2), (-4, 3)])
def test_the_shift_of_a_panning_camera_is_measured(shift: tuple[int, int]) -> None:
    evidence, wide = ImageEvidence(), texture(3, (220, 400))
    evidence.observe(np.ascontiguousarray(wide[20:200, 40:360]))
    x, y = shift
    seen = evidence.observe(np.ascontiguousarray(wide[20 - y : 200 - y, 40 - x : 360 - x]))
    assert seen.camera_motion is not None and not seen.cut
    assert seen.camera_motion[:2, 2] == pytest.approx(shift, abs=0.5)


def test_another_scene_is_a_cut_and_a_pan_is_none() -> None:
    evidence, wide = ImageEvidence(), texture(4, (220, 900))
    for step in range(20):
        assert not evidence.observe(np.ascontiguousarray(wide[20:200, 5 * step : 5 * step + 320])).cut
    seen = evidence.observe(255 - wide[20:200, 100:420])
    assert seen.cut and seen.camera_motion is None


def test_the_second_picture_may_be_a_cut_and_one_soon_after_it_too() -> None:
    evidence = ImageEvidence()
    shown = [texture(1), *[texture(2)] * 4, *[texture(3)] * 4]
    assert [number for number, one in enumerate(shown) if evidence.observe(one).cut] == [1, 5]


def test_pictures_of_another_size_start_again() -> None:
    evidence = ImageEvidence()
    evidence.observe(texture(5))
    evidence.mark_inferred()
    assert evidence.observe(texture(5, (90, 160))) == (1.0, False, IDENTITY)


# The gate with a promise.
def play(
    gate: FrameGate, pictures: list[np.ndarray], found: Detections, period_ns: int = 33_333_333
) -> list[str]:
    """The reasons of frames whose results come at once."""
    reasons = []
    for number, picture in enumerate(pictures):
        stamp_ns = START_NS + number * 33_333_333
        decision = gate.decide(Frame(picture, stamp_ns, "camera", "mono8"), stamp_ns)
        if decision.passed:
            gate.inferred(stamp_ns, found, NOTHING)
        reasons.append(decision.reason)
    return reasons


PROMISE = GateConfig(min_fidelity=0.97, audit_rate=0.0)


def test_a_gate_with_a_promise_skips_still_frames_and_predicts_moving_ones() -> None:
    still = play(FrameGate(PROMISE), [texture(6)] * 40, scored(0.95))
    assert still[0] == "first" and still.count("still") >= 38
    moving = [np.roll(texture(7), 4 * step, axis=1) for step in range(40)]
    reasons = play(FrameGate(PROMISE), moving, scored(0.95))
    assert reasons.count("interval") >= 8 and reasons.count("predicted") >= 20


def test_the_bounds_hold_with_a_promise_too() -> None:
    gate = FrameGate(GateConfig(min_fidelity=0.97, max_rate_hz=5.0, audit_rate=0.0))
    moving = [np.roll(texture(8), 4 * step, axis=1) for step in range(60)]
    reasons = play(gate, moving, scored(0.95))
    assert sum(reason != "rate_limit" and reason != "predicted" for reason in reasons) <= 11
    assert gate.decide(Frame(moving[0], START_NS, "camera", "mono8"), START_NS).reason == "clock_jump"
    gate.reset("model_swap")
    late_ns = START_NS + 33_333_333
    assert gate.decide(Frame(moving[0], late_ns, "camera", "mono8"), late_ns).reason == "model_swap"


def test_the_audit_samples_still_frames_alone() -> None:
    gate = FrameGate(GateConfig(min_fidelity=0.97, audit_rate=1.0, audit_max_hz=1000.0), seed=1)
    moving = [np.roll(texture(9), 4 * step, axis=1) for step in range(40)]
    assert "audit" not in play(gate, moving, scored(0.95))
    gate = FrameGate(GateConfig(min_fidelity=0.97, audit_rate=1.0, audit_max_hz=1000.0), seed=1)
    assert "audit" in play(gate, [texture(9)] * 40, scored(0.95))


@pytest.mark.parametrize("rate_hz", [1, 5, 10, 15, 24, 29.97, 60])
@pytest.mark.parametrize("max_delay_ms", [40.0, 100.0, 150.0])
def test_the_needed_share_is_that_of_the_promised_interval(rate_hz: float, max_delay_ms: float) -> None:
    promise, scheduler = Promise(max_delay_ms, 0.0, 60000.0), Scheduler()
    inferred = 0
    for number in range(301):
        stamp_ns = START_NS + round(number * 1e9 / rate_hz)
        if scheduler.decide(promise, CHANGED, stamp_ns) not in SCHEDULED_SKIPS:
            scheduler.inferring(promise, stamp_ns, cut=False)
            scheduler.observe(stamp_ns, NOTHING, NOTHING, NOTHING)
            inferred += 1
    assert inferred == pytest.approx(301 * scheduler.needed_share(promise), abs=3)
