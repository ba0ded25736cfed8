"""The prior of the camera's motion, against points projected with a known rotation."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.gate.ego_prior import (
    HOLD_NS,
    IMU_GAP_NS,
    JUMP_NS,
    ODOMETRY_GAP_NS,
    EgoPrior,
    OrientationHistory,
    camera_matrix,
    mounting_rotation,
    rotation_homography,
    scaled_camera_matrix,
)

MS = 1_000_000
START_NS = 1_700_000_000_000_000_000
WIDTH, HEIGHT, FOCAL = 1280, 720, 900.0
AHEAD = mounting_rotation(-90.0, 0.0, -90.0)


def turn_about(axis, angle_rad: float) -> np.ndarray:
    """Rodrigues' formula, written out: not the code under test."""
    x, y, z = np.asarray(axis, float) / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle_rad) * k + (1 - np.cos(angle_rad)) * k @ k


def quaternion(axis, angle_rad: float) -> list[float]:
    unit = np.asarray(axis, float) / np.linalg.norm(axis)
    return [*(unit * np.sin(angle_rad / 2)), np.cos(angle_rad / 2)]


def project(points: np.ndarray, orientation: np.ndarray, mounting: np.ndarray) -> np.ndarray:
    """(n, 2) pixels of points (n, 3) of the world, seen by the camera on a body at the world's origin."""
    in_camera = points @ orientation @ mounting
    assert (in_camera[:, 2] > 0).all(), "the points are in front of the camera"
    k = camera_matrix(FOCAL, WIDTH, HEIGHT)
    return in_camera[:, :2] / in_camera[:, 2:] * [k[0, 0], k[1, 1]] + k[:2, 2]


def moved(points_px: np.ndarray, motion: np.ndarray) -> np.ndarray:
    found = np.column_stack([points_px, np.ones(len(points_px))]) @ motion.T
    return found[:, :2] / found[:, 2:]


def world_points(mounting: np.ndarray = AHEAD) -> np.ndarray:
    """Points in front of the camera, near and far: depth must not matter."""
    rng = np.random.default_rng(0)
    in_camera = np.column_stack([rng.uniform(-0.3, 0.3, (50, 2)), np.ones(50)]) * rng.uniform(
        0.5, 80, (50, 1)
    )
    return in_camera @ mounting.T


AXES = {"yaw": (0, 0, 1), "pitch": (0, 1, 0), "roll": (1, 0, 0), "all": (0.3, -0.5, 0.8)}
MOUNTINGS = {
    "ahead": (-90.0, 0.0, -90.0),
    "own axes": (0.0, 0.0, 0.0),
    "back and down": (-110.0, 0.0, 90.0),
    "odd": (13.0, -27.0, 71.0),
}


@pytest.mark.parametrize("axis", AXES.values(), ids=AXES)
@pytest.mark.parametrize("angles", MOUNTINGS.values(), ids=MOUNTINGS)
@pytest.mark.parametrize("source", ["rates", "orientations"])
def test_points_move_as_projected(axis, angles, source):
    """A body that turns ever faster about an axis; frames lie between the samples."""
    mounting, unit = mounting_rotation(*angles), np.asarray(axis, float) / np.linalg.norm(axis)
    history = OrientationHistory(IMU_GAP_NS)

    def angle(t_s: float) -> float:
        return 0.1 + 0.3 * t_s + 1.5 * t_s**2

    for step in range(60):
        t_s, stamp_ns = step * 0.005, START_NS + step * 5 * MS
        if source == "rates":
            assert history.add_rate(stamp_ns, unit * (0.3 + 3.0 * t_s))
        else:
            assert history.add_orientation(stamp_ns, quaternion(axis, angle(t_s)))
    prior = EgoPrior(history, mounting, FOCAL)
    from_ns, to_ns = START_NS + 52 * MS, START_NS + 153 * MS
    motion = prior.motion(from_ns, to_ns, WIDTH, HEIGHT)
    assert motion is not None and motion.shape == (3, 3) and motion[2, 2] == 1.0 and prior.missing == ""
    before, after = turn_about(axis, angle(0.052)), turn_about(axis, angle(0.153))
    points = world_points(mounting) @ before.T
    seen_before, seen_after = project(points, before, mounting), project(points, after, mounting)
    assert np.abs(seen_after - seen_before).max() > 5.0
    # Between two samples the rate is interpolated: an error of 1.5 rad/s2 * (5 ms)2, 0.02 px here.
    assert np.abs(moved(seen_before, motion) - seen_after).max() < 0.05


def test_a_turn_to_the_left_moves_the_image_to_the_right():
    """Yaw is positive to the left (REP 103): two wrong signs must not cancel."""
    history = OrientationHistory(IMU_GAP_NS)
    for step in range(21):
        history.add_rate(START_NS + step * 5 * MS, (0.0, 0.0, 0.5))
    motion = EgoPrior(history, AHEAD, FOCAL).motion(START_NS, START_NS + 100 * MS, WIDTH, HEIGHT)
    x, y = moved(np.array([[639.5, 359.5]]), motion)[0]
    assert x == pytest.approx(639.5 + FOCAL * np.tan(0.05), abs=1e-6) and y == pytest.approx(359.5)


def test_tumbling_is_integrated_in_the_right_order():
    """First pitch, then yaw, is not first yaw, then pitch."""
    history = OrientationHistory(IMU_GAP_NS)
    quarter = np.pi / 2 / 0.1
    for step in range(41):
        stamp_ns = START_NS + step * 5 * MS + (step > 20)
        if step == 20:
            history.add_rate(START_NS + 100 * MS, (0.0, quarter, 0.0))
            history.add_rate(START_NS + 100 * MS + 1, (0.0, 0.0, quarter))
        else:
            history.add_rate(stamp_ns, (0.0, quarter, 0.0) if step < 20 else (0.0, 0.0, quarter))
    back = history.rotation(START_NS, START_NS + 200 * MS + 1).T
    expected = turn_about((0, 1, 0), np.pi / 2) @ turn_about((0, 0, 1), np.pi / 2)
    assert back == pytest.approx(expected, abs=1e-6)


def filled(gap_ns: int = IMU_GAP_NS, steps: int = 41) -> OrientationHistory:
    history = OrientationHistory(gap_ns)
    for step in range(steps):
        assert history.add_rate(START_NS + step * 5 * MS, (0.0, 0.0, 1.0))
    return history


END_NS = START_NS + 200 * MS


@pytest.mark.parametrize(
    "from_ns,to_ns,known",
    [
        (START_NS, END_NS, True),
        (START_NS - 1, END_NS, False),
        (START_NS, END_NS + HOLD_NS, True),
        (START_NS, END_NS + HOLD_NS + 1, False),
        (END_NS, START_NS, False),
        (END_NS, END_NS, True),
        (END_NS + JUMP_NS, END_NS + JUMP_NS + 1, False),
    ],
)
def test_the_rotation_is_known_within_the_samples(from_ns, to_ns, known):
    rotation = filled().rotation(from_ns, to_ns)
    assert (rotation is not None) == known
    if known:
        angle = -(to_ns - from_ns) / 1e9
        assert rotation == pytest.approx(turn_about((0, 0, 1), angle), abs=1e-9), (
            "extrapolated after the last sample"
        )


def test_fewer_than_two_samples_give_no_rotation():
    history = OrientationHistory(IMU_GAP_NS)
    assert history.rotation(START_NS, START_NS) is None
    history.add_rate(START_NS, (0, 0, 0))
    assert history.rotation(START_NS, START_NS) is None


BAD_RATES = [(np.nan, 0, 0), (0, np.inf, 0), (0, 0), (0, 0, 0, 0)]
BAD_QUATERNIONS = [(0, 0, 0, 0), (np.nan, 0, 0, 1), (0, 0, 0, -np.inf), (0, 0, 1)]


def test_samples_that_are_not_finite_are_rejected():
    history = filled()
    for rate in BAD_RATES:
        assert not history.add_rate(END_NS + 1, rate)
    for xyzw in BAD_QUATERNIONS:
        assert not history.add_orientation(END_NS + 1, xyzw)
    assert len(history) == 41
    assert history.rotation(START_NS, END_NS) == pytest.approx(turn_about((0, 0, 1), -0.2), abs=1e-9)


def test_quaternions_are_normalised():
    history = OrientationHistory(ODOMETRY_GAP_NS)
    for step in range(3):
        xyzw = np.array(quaternion((0, 0, 1), 0.1 * step)) * (1 + step) * (-1) ** step
        assert history.add_orientation(START_NS + step * 50 * MS, xyzw)
    assert history.rotation(START_NS, START_NS + 100 * MS) == pytest.approx(turn_about((0, 0, 1), -0.2))


@pytest.mark.parametrize("stamp_ns", [END_NS, END_NS - 1, END_NS - JUMP_NS, 0, -5])
def test_repeated_late_and_unstamped_samples_are_rejected(stamp_ns):
    history = filled()
    assert not history.add_rate(stamp_ns, (9.0, 9.0, 9.0))
    assert history.rotation(START_NS, END_NS) == pytest.approx(turn_about((0, 0, 1), -0.2), abs=1e-9)


@pytest.mark.parametrize(
    "stamp_ns", [END_NS + IMU_GAP_NS + 1, END_NS + 3600 * 10**9, END_NS - JUMP_NS - 1, 1]
)
def test_a_gap_or_a_jump_clears_the_history(stamp_ns):
    history = filled()
    assert history.add_rate(stamp_ns, (0.0, 0.0, 2.0))
    assert len(history) == 1 and history.rotation(START_NS, END_NS) is None
    assert history.add_rate(stamp_ns + 5 * MS, (0.0, 0.0, 2.0))
    assert history.rotation(stamp_ns, stamp_ns + 5 * MS) == pytest.approx(
        turn_about((0, 0, 1), -0.01), abs=1e-9
    )
    assert history.rotation(END_NS, stamp_ns) is None


def test_the_history_recovers_from_one_wrong_stamp_far_ahead():
    history = filled()
    assert history.add_rate(END_NS + 10**15, (0, 0, 0))
    for step in range(1, 4):
        assert history.add_rate(END_NS + step * 5 * MS, (0.0, 0.0, 1.0))
    assert history.rotation(END_NS + 5 * MS, END_NS + 15 * MS) is not None


def test_the_oldest_samples_are_dropped():
    history = OrientationHistory(IMU_GAP_NS, size=8)
    for step in range(20):
        history.add_rate(START_NS + step * MS, (0, 0, 1.0))
    assert len(history) == 8
    assert history.rotation(START_NS + 11 * MS, START_NS + 19 * MS) is None
    assert history.rotation(START_NS + 12 * MS, START_NS + 19 * MS) is not None
    history.clear()
    assert len(history) == 0 and history.rotation(START_NS + 12 * MS, START_NS + 19 * MS) is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-50, 400), max_size=40), st.integers(-50, 500), st.integers(-50, 500))
def test_samples_in_any_order_give_a_proper_rotation_or_none(steps_ms, from_ms, to_ms):
    history = OrientationHistory(IMU_GAP_NS)
    for step in steps_ms:
        history.add_rate(START_NS + step * MS, (0.1 * step, 1.0, -0.5))
    rotation = history.rotation(START_NS + from_ms * MS, START_NS + to_ms * MS)
    if rotation is not None:
        assert rotation @ rotation.T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(rotation) > 0


def test_one_thread_adds_while_another_reads():
    history = OrientationHistory(IMU_GAP_NS, size=64)
    failed: list[BaseException] = []

    def add() -> None:
        try:
            for step in range(5000):
                history.add_rate(START_NS + step * MS, (0, 0, 1.0))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    known = 0
    while thread.is_alive():
        with_samples = len(history) > 1
        for step in range(0, 5000, 100):
            known += (
                with_samples
                and history.rotation(START_NS + step * MS, START_NS + (step + 5) * MS) is not None
            )
    thread.join()
    assert not failed
    assert history.rotation(START_NS + 4990 * MS, START_NS + 4999 * MS) is not None


# The camera.


def test_a_missing_focal_length_is_reported():
    prior = EgoPrior(filled(), AHEAD)
    assert prior.motion(START_NS, END_NS, WIDTH, HEIGHT) is None and "ego_focal_px" in prior.missing
    prior.calibrate(camera_matrix(FOCAL, WIDTH, HEIGHT), WIDTH, HEIGHT)
    known = prior.motion(START_NS, END_NS, WIDTH, HEIGHT)
    assert known == pytest.approx(EgoPrior(filled(), AHEAD, FOCAL).motion(START_NS, END_NS, WIDTH, HEIGHT))
    assert prior.missing == ""
    assert prior.motion(END_NS, END_NS + JUMP_NS, WIDTH, HEIGHT) is None and "samples" in prior.missing


@pytest.mark.parametrize(
    "matrix,size",
    [
        (np.zeros((3, 3)), (WIDTH, HEIGHT)),
        (np.full((3, 3), np.nan), (WIDTH, HEIGHT)),
        (np.diag([FOCAL, FOCAL, 0.0]), (WIDTH, HEIGHT)),
        (np.eye(2), (WIDTH, HEIGHT)),
        (np.eye(3), (0, 0)),
    ],
)
def test_an_uncalibrated_camera_info_is_ignored(matrix, size):
    """Drivers without a calibration publish zeros."""
    prior = EgoPrior(filled(), AHEAD)
    prior.calibrate(matrix, *size)
    assert prior.motion(START_NS, END_NS, WIDTH, HEIGHT) is None


def test_the_parameter_overrides_the_calibration():
    prior = EgoPrior(filled(), AHEAD, FOCAL)
    prior.calibrate(camera_matrix(100.0, WIDTH, HEIGHT), WIDTH, HEIGHT)
    expected = EgoPrior(filled(), AHEAD, FOCAL).motion(START_NS, END_NS, WIDTH, HEIGHT)
    assert prior.motion(START_NS, END_NS, WIDTH, HEIGHT) == pytest.approx(expected)


def test_a_calibration_of_another_size_is_scaled():
    """A scene point keeps its relative position; pixel centres are at integers."""
    full = np.array([[910.0, 0, 655.0], [0, 905.0, 351.0], [0, 0, 1]])
    half = scaled_camera_matrix(full, WIDTH, HEIGHT, WIDTH // 2, HEIGHT // 2)
    ray = np.array([0.21, -0.13, 1.0])
    in_full, in_half = full @ ray, half @ ray
    assert (in_half[:2] + 0.5) * 2 == pytest.approx(in_full[:2] + 0.5)
    assert scaled_camera_matrix(full, WIDTH, HEIGHT, 640, 480) is None, "another aspect ratio"


@pytest.mark.filterwarnings("error")
def test_a_calibration_that_is_not_finite_is_ignored_without_a_warning():
    matrix = np.array([[np.inf, 0, 655.0], [0, np.nan, 351.0], [0, 0, 1]])
    scaled = scaled_camera_matrix(matrix, WIDTH, HEIGHT, WIDTH // 2, HEIGHT // 2)
    prior = EgoPrior(filled(), AHEAD)
    prior.calibrate(scaled, WIDTH, HEIGHT)
    assert prior.motion(START_NS, END_NS, WIDTH, HEIGHT) is None


def test_a_rotation_without_overlap_gives_none():
    matrix = camera_matrix(FOCAL, WIDTH, HEIGHT)
    assert rotation_homography(turn_about((0, 1, 0), 1.0), matrix) is not None
    assert rotation_homography(turn_about((0, 1, 0), 1.5), matrix) is None
    assert rotation_homography(turn_about((0, 1, 0), 3.0), matrix) is None
    assert rotation_homography(turn_about((0, 0, 1), 3.0), matrix) is not None, "a roll keeps the view"


def test_the_mounting_is_that_of_a_urdf():
    """z of the optical frame is x (forward) of the body, x is -y (right), y is -z (down)."""
    assert pytest.approx(np.array([[0, 0, 1], [-1, 0, 0], [0, -1, 0]]), abs=1e-12) == AHEAD
    assert mounting_rotation(0, 0, 90) @ [1, 0, 0] == pytest.approx([0, 1, 0])
    assert mounting_rotation(90, 0, 90) @ [0, 1, 0] == pytest.approx([0, 0, 1]), "x first, then z"


def test_samples_that_no_sensor_measures_are_rejected_and_leave_no_trace():
    history = OrientationHistory(IMU_GAP_NS)
    for step in range(1, 40):
        history.add_rate(step * 5_000_000, (0.0, 0.1, 0.0))
    assert not history.add_rate(196_000_000, (0.0, 1e300, 0.0))
    assert not history.add_orientation(196_000_000, (0.0, 0.0, 1e300, 1e300))
    assert history.add_rate(200_000_000, (0.0, 0.1, 0.0))
    rotation = history.rotation(100_000_000, 200_000_000)
    assert rotation is not None and rotation[2, 0] == pytest.approx(np.sin(0.01), abs=1e-6)
