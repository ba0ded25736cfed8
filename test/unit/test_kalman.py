"""The vectorised Kalman filter against its matrix form, and the association against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.tracking import association
from edge_vision.tracking.kalman import (
    BOX,
    CLASS_ID,
    COV,
    HELD,
    INFO_ROWS,
    MEASURED_SD,
    SPEED,
    SPEED_VAR,
    USED_SPEED,
    VAR,
    TrackSet,
    compensate_camera,
    correct,
    initial_state,
    predict,
)

SECONDS, DRIFT_SD = 0.4, 0.3
BOXES = np.array([[100.0, 300.0, 500.0], [80.0, 200.0, 90.0], [40.0, 60.0, 30.0], [80.0, 20.0, 33.0]])


def corrected(state: np.ndarray, measured: np.ndarray, seconds: float) -> np.ndarray:
    return correct(state, measured, np.full(3, seconds))


def filters() -> np.ndarray:
    """Three tracks with two detections each, so that speeds and all covariances are set."""
    state = initial_state(BOXES, np.full(3, 0.9))
    predict(state, 0.2, DRIFT_SD)
    return corrected(state, BOXES + np.array([[5.0], [-3.0], [1.0], [2.0]]), 0.2)


def covariance(state: np.ndarray, row: int, track: int) -> np.ndarray:
    var, cov, speed_var = state[VAR][row, track], state[COV][row, track], state[SPEED_VAR][row, track]
    return np.array([[var, cov], [cov, speed_var]])


@pytest.mark.parametrize("row", range(2), ids=["x", "y"])
def test_prediction_and_correction_match_the_matrix_form(row: int) -> None:
    """P = F P F' + Q; then, with the measurement as the position and the optimal gain k of the speed,
    L = (1, k)', v += k (z - x), P = (I - L H) P (I - L H)' + L R L' (Joseph's form)."""
    before, after = filters(), filters()
    predict(after, SECONDS, DRIFT_SD)
    seen = after[BOX] + np.array([[4.0], [6.0], [-2.0], [1.0]])
    both = corrected(after.copy(), seen, SECONDS)
    step = np.array([[1.0, SECONDS], [0.0, 1.0]])
    for track in range(3):
        power = DRIFT_SD**2 * after[BOX][2, track] * after[BOX][3, track]
        noise = power * np.array([[SECONDS**3 / 3, SECONDS**2 / 2], [SECONDS**2 / 2, SECONDS]])
        spread = step @ covariance(before, row, track) @ step.T + noise
        assert covariance(after, row, track) == pytest.approx(spread)
        measured_var = MEASURED_SD**2 * seen[2, track] * seen[3, track]
        gain = np.array([1.0, spread[0, 1] / (spread[0, 0] + measured_var)])
        kept = np.eye(2) - np.outer(gain, [1.0, 0.0])
        spread = kept @ spread @ kept.T + np.outer(gain, gain) * measured_var
        assert covariance(both, row, track) == pytest.approx(spread)
        # The filter's own prediction is at its estimated speed, whichever speed the box was moved with.
        speed = before[SPEED][row, track]
        error = seen[row, track] - (before[BOX][row, track] + speed * SECONDS)
        assert both[SPEED][row, track] == pytest.approx(speed + gain[1] * error)
    np.testing.assert_array_equal(both[BOX], seen)
    np.testing.assert_array_equal(both[HELD], seen)


def test_predictions_use_the_smaller_of_the_estimated_and_the_last_speed() -> None:
    state = filters()
    state[SPEED][0], state[USED_SPEED] = (10.0, 10.0, -10.0), 0.0
    predict(state, SECONDS, 0.0)
    before = state[BOX].copy()
    # The last speeds are 2, 1000 and 50 px/s.
    after = corrected(state, before + np.array([[0.8, 400.0, 20.0], [0] * 3, [0] * 3, [0] * 3]), SECONDS)
    used, estimated = after[USED_SPEED][0], after[SPEED][0]
    assert used[0] == pytest.approx(2.0)
    assert used[1] == estimated[1] < 1000.0
    assert used[2] == (estimated[2] if estimated[2] > 0.0 else 0.0)


def test_camera_compensation_transforms_positions_and_speeds_consistently() -> None:
    """Predicting and then compensating equals compensating and then predicting."""
    motion = np.array([[1.02, 0.01, 3], [-0.01, 0.99, -2], [2e-5, -3e-5, 1]])
    state, moment_s = filters(), 1e-4
    later = state[:2] + moment_s * state[SPEED]
    variance = state[VAR].copy()
    compensate_camera(state, motion)
    for track in range(3):
        at = motion @ [*later[:, track], 1.0]
        assert state[:2, track] + moment_s * state[SPEED][:, track] == pytest.approx(at[:2] / at[2], abs=1e-5)
    growth = state[2] * state[3] / (filters()[2] * filters()[3])
    assert state[VAR] / variance == pytest.approx(np.tile(growth, (2, 1)))


def pairs_one_by_one(boxes: np.ndarray, var: np.ndarray, measured: np.ndarray) -> list[tuple[int, int]]:
    """Greedy pairs, the largest IoU less squared distance in standard deviations first."""
    found = []
    for i, j in np.ndindex(boxes.shape[1], measured.shape[1]):
        one, other = boxes[:, i], measured[:, j]
        far = ((one[:2] - other[:2]) ** 2 / (var[:2, i] + MEASURED_SD**2 * other[2] * other[3])).sum()
        low = np.maximum(one[:2] - one[2:] / 2, other[:2] - other[2:] / 2)
        high = np.minimum(one[:2] + one[2:] / 2, other[:2] + other[2:] / 2)
        both = np.prod(np.maximum(high - low, 0.0))
        iou = both / (one[2] * one[3] + other[2] * other[3] - both)
        of_a_size = (np.maximum(one[2:] / other[2:], other[2:] / one[2:]) < association.MAX_SIZE_RATIO).all()
        if of_a_size and (far < association.CHI2_GATE or iou > association.MIN_IOU):
            found.append((iou - far / association.CHI2_GATE, i, j))
    taken: list[tuple[int, int]] = []
    for _, i, j in sorted(found, reverse=True):
        if all(i != a and j != b for a, b in taken):
            taken.append((i, j))
    return taken


@pytest.mark.parametrize("few", [0, 10**9], ids=["a crowd", "a few"])
@pytest.mark.parametrize("spread_px", [40, 150, 600])
def test_the_most_similar_pairs_are_matched_first(
    spread_px: int, few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(association, "MAX_DENSE_PAIRS", few)
    rng = np.random.default_rng(spread_px)
    for _ in range(30):
        boxes, measured = (
            np.concatenate((rng.uniform(0, spread_px, (2, 12)), rng.uniform(12, 40, (2, 12)))) for _ in "ab"
        )
        state = initial_state(boxes, np.ones(12))
        predict(state, rng.uniform(0, 2), DRIFT_SD)
        tracks = TrackSet(state, np.zeros((INFO_ROWS, 12), np.int64))
        found = association.match(tracks, boxes, measured, np.zeros(12, np.int32))
        assert list(zip(*found, strict=True)) == pairs_one_by_one(boxes, state[VAR], measured)


PLACE = st.tuples(st.floats(0, 640), st.floats(0, 480), st.floats(5, 90), st.floats(5, 90), st.integers(0, 2))


@settings(deadline=None)
@given(st.lists(PLACE, max_size=25), st.lists(PLACE, max_size=25), st.floats(0.05, 2.0))
def test_the_coarse_test_loses_no_match(known: list, seen: list, seconds: float) -> None:
    """Above MAX_DENSE_PAIRS a coarse test selects the pairs to compare."""
    boxes, measured = (np.array([one[:4] for one in places]).reshape(-1, 4).T for places in (known, seen))
    state = initial_state(boxes, np.ones(len(known)))
    predict(state, seconds, DRIFT_SD)
    facts = np.zeros((INFO_ROWS, len(known)), np.int64)
    facts[CLASS_ID] = [one[4] for one in known]
    class_ids = np.array([one[4] for one in seen], np.int32)
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for few in (0, 10**9):
            patch.setattr(association, "MAX_DENSE_PAIRS", few)
            found.append(association.match(TrackSet(state, facts), boxes, measured, class_ids))
    np.testing.assert_array_equal(found[0], found[1])
    rows, columns = found[0]
    assert len(set(rows.tolist())) == len(rows) and len(set(columns.tolist())) == len(columns)
    assert (facts[CLASS_ID, rows] == class_ids[columns]).all()


SIZES = np.array([[40.0, 40.0], [80.0, 80.0]])


@pytest.mark.parametrize(
    ("step_px", "growth", "agree"),
    [
        ((150.0, 150.0), 1.0, True),
        ((150.0, 230.0), 1.0, False),
        ((150.0, 150.0), 1.5, False),
        ((150.0, 150.0), 0.7, False),
    ],
    ids=["alike", "apart", "one larger", "one smaller"],
)
def test_a_common_shift_needs_two_equally_displaced_objects(
    step_px: tuple, growth: float, agree: bool
) -> None:
    before = np.concatenate((np.array([[100.0, 400.0], [100.0, 300.0]]), SIZES))
    after = before + np.array([step_px, (0.0, 0.0), (0.0, 0.0), (0.0, 0.0)])
    after[2:, 1] *= growth
    tracks = TrackSet(initial_state(before, np.ones(2)), np.zeros((INFO_ROWS, 2), np.int64))
    shift = association.common_shift(tracks, after, np.zeros(2, np.int32))
    assert (shift is not None) is agree
    if shift is not None:
        assert shift.ravel().tolist() == [150.0, 0.0]
