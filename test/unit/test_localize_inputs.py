"""Transforms and depth images at the time of an image."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from depth_cases import depth_image
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.core.geometry.rotations import quaternion_of_rotation, rotation_of_quaternion
from edge_vision.errors import LocalizationError
from edge_vision.localize.depth import MAX_AGE_NS, DepthHistory, DepthImage
from edge_vision.localize.transforms import HISTORY_NS, MAX_FRAMES, MAX_SAMPLES, TransformTree

S = 10**9
vectors = st.lists(st.floats(-3, 3), min_size=3, max_size=3).map(np.array)
NONE = np.array([0.0, 0.0, 0.0, 1.0])


def quaternion(rotation_vector) -> np.ndarray:
    return quaternion_of_rotation(cv2.Rodrigues(np.asarray(rotation_vector, float))[0])


def reason_of(call) -> str:
    with pytest.raises(LocalizationError) as caught:
        call()
    assert "expected" in str(caught.value)
    return str(caught.value)


@settings(deadline=None)
@given(vectors)
def test_a_quaternion_is_its_rotation(vector):
    rotation = cv2.Rodrigues(vector)[0]
    found = quaternion_of_rotation(rotation)
    assert rotation_of_quaternion(found) == pytest.approx(rotation, abs=5e-5)
    assert np.linalg.norm(found) == pytest.approx(1) and found[3] >= 0


@settings(deadline=None)
@given(vectors, vectors, vectors, vectors, vectors)
def test_a_point_goes_through_the_tree_and_back(turn, move, turn_2, move_2, point):
    """base -> camera and base -> arm -> tool: a point of the camera, seen from the tool."""
    tree = TransformTree()
    tree.add("base", "camera", None, quaternion(turn), move)
    tree.add("base", "arm", None, quaternion(turn_2), move_2)
    tree.add("/arm", "/tool", None, NONE, np.array([0, 0, 1.0]))
    there, back = tree.lookup("tool", "camera", 5), tree.lookup("camera", "tool", 5)
    in_base = cv2.Rodrigues(turn)[0] @ point + move
    in_arm = cv2.Rodrigues(turn_2)[0].T @ (in_base - move_2)
    assert there.rotation @ point + there.translation_m == pytest.approx(in_arm - (0, 0, 1), abs=2e-4)
    both = back @ there
    assert both.rotation @ point + both.translation_m == pytest.approx(point, abs=2e-4)


@settings(deadline=None)
@given(st.integers(0, 100))
def test_a_moving_frame_is_interpolated(percent):
    """It turns by 1 rad and moves by 2 m in a second, at constant speeds."""
    tree = TransformTree()
    tree.add("odom", "base", S, quaternion([0, 0, 0.2]), np.array([1.0, 0, 0]))
    tree.add("odom", "base", 2 * S, quaternion([0, 0, 1.2]), np.array([3.0, 0, 0]))
    found = tree.lookup("odom", "base", S + percent * S // 100)
    assert found.translation_m == pytest.approx([1 + percent / 50, 0, 0])
    assert cv2.Rodrigues(found.rotation)[0].ravel() == pytest.approx([0, 0, 0.2 + percent / 100])


def test_it_is_never_extrapolated_and_says_by_how_much_it_is_late():
    tree = TransformTree()
    tree.add("odom", "base", 2 * S, NONE, np.zeros(3))
    tree.add("base", "camera", None, NONE, np.ones(3))
    assert "40 ms before it" in reason_of(lambda: tree.lookup("odom", "camera", 2 * S + 40_000_000))
    assert "1000 ms after it" in reason_of(lambda: tree.lookup("odom", "camera", S))
    # A frame above the common one is of no matter.
    assert tree.lookup("base", "camera", 99 * S).translation_m == pytest.approx([1, 1, 1])


def test_unknown_and_unconnected_frames_are_named():
    tree = TransformTree()
    tree.add("base", "camera", None, NONE, np.zeros(3))
    tree.add("map", "odom", None, NONE, np.zeros(3))
    assert "no transforms of mast" in reason_of(lambda: tree.lookup("mast", "camera", 1))
    assert "not connected" in reason_of(lambda: tree.lookup("map", "camera", 1))
    assert tree.lookup("any", "any", 1).translation_m == pytest.approx([0, 0, 0])


def test_a_loop_ends():
    tree = TransformTree()
    tree.add("a", "b", None, NONE, np.zeros(3))
    tree.add("b", "a", None, NONE, np.zeros(3))
    reason_of(lambda: tree.lookup("c", "a", 1))


def test_the_history_is_bounded_and_starts_again_with_the_clock():
    tree = TransformTree()
    for i in range(MAX_SAMPLES + 100):
        tree.add("odom", "base", 100 * S + i, NONE, np.zeros(3))
    reason_of(lambda: tree.lookup("odom", "base", 100 * S + 50))
    tree.add("odom", "base", 100 * S + HISTORY_NS * 2, NONE, np.zeros(3))
    reason_of(lambda: tree.lookup("odom", "base", 100 * S + 2000))
    tree.add("odom", "base", 5 * S, NONE, np.array([7.0, 0, 0]))
    assert tree.lookup("odom", "base", 5 * S).translation_m[0] == 7
    for i in range(MAX_FRAMES - 1):
        tree.add("base", f"link_{i}", None, NONE, np.zeros(3))
    with pytest.raises(ValueError, match="at most"):
        tree.add("base", "one_more", None, NONE, np.zeros(3))


def test_samples_that_arrive_late_or_twice():
    tree = TransformTree()
    for at, x in ((3, 3.0), (1, 1.0), (2, 9.0), (2, 2.0)):
        tree.add("odom", "base", at * S, NONE, np.array([x, 0, 0]))
    assert tree.lookup("odom", "base", 3 * S // 2).translation_m[0] == pytest.approx(1.5)
    tree.add("map", "base", 2 * S, NONE, np.array([5.0, 0, 0]))  # A new parent.
    reason_of(lambda: tree.lookup("odom", "base", 2 * S))
    assert tree.lookup("map", "base", 2 * S).translation_m[0] == 5


@pytest.mark.parametrize(
    ("parent", "child", "q", "t"),
    [
        ("a", "a", NONE, np.zeros(3)),
        ("", "a", NONE, np.zeros(3)),
        ("a", "b", np.zeros(4), np.zeros(3)),
        ("a", "b", np.full(4, np.nan), np.zeros(3)),
        ("a", "b", NONE, np.array([np.inf, 0, 0])),
        ("a", "b", NONE * 1e30, np.zeros(3)),
    ],
)
def test_an_invalid_transform_is_refused(parent, child, q, t):
    with pytest.raises(ValueError, match="expected"):
        TransformTree().add(parent, child, 1, q, t)


def image(stamp_ns: int) -> DepthImage:
    return DepthImage(np.ones((10, 10), np.float32), stamp_ns, "camera")


def test_the_nearest_depth_image_is_taken_and_final_once_none_can_be_nearer():
    history = DepthHistory()
    for stamp_ns in (100, 200):
        history.add(image(stamp_ns), 1e6)
    found = [(one.stamp_ns, final) for one, final in (history.nearest(at, 60) for at in (100, 140, 200, 230))]
    assert found == [(100, True), (100, True), (200, True), (200, False)]
    assert "stamps" not in reason_of(lambda: history.nearest(261, 60))
    assert "none" in reason_of(lambda: DepthHistory().nearest(1, 60))


def test_depth_images_are_bounded_in_bytes_and_number_and_the_newest_is_kept():
    history = DepthHistory()
    for stamp_ns in range(1000):
        history.add(image(1000 + stamp_ns), 1e9)
    assert history.bytes == 256 * 400
    history.add(image(MAX_AGE_NS + 1990), 1e9)
    assert history.nearest(1990, 0) and history.bytes == 11 * 400, "ten of the old ones"
    history.add(image(MAX_AGE_NS + 2000), 1000)
    assert history.bytes == 800
    history.add(image(4 * MAX_AGE_NS), 1)
    assert history.nearest(4 * MAX_AGE_NS, 0)[0].stamp_ns == 4 * MAX_AGE_NS and history.bytes == 400
    history.add(image(50), 1e6)  # The clock was set back.
    assert history.bytes == 400 and history.nearest(50, 0)[0].stamp_ns == 50


def test_disparities_outside_the_valid_range_have_no_depth():
    depth = depth_image(
        np.array([[0.0, 0.5, 10.0, 100.0, 101.0, -1.0]], "f4"), 50.0, disparities=(1.0, 100.0)
    )
    found = depth.metres(depth.values, 30.0)
    assert found[0, 2:4] == pytest.approx([5.0, 0.5]) and np.isfinite(found).sum() == 2
