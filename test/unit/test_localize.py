"""Places of objects against rendered truth."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from depth_cases import (
    HEIGHT,
    WIDTH,
    Block,
    Picture,
    Post,
    camera,
    depth_image,
    in_millimetres,
    render,
    spoiled,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_vision.errors import LocalizationError
from edge_vision.localize.camera import CameraModel
from edge_vision.localize.depth import nearest_surface
from edge_vision.localize.placing import CAMERA_UP, CameraView, Placement

SCENES = {
    "person": [Post((0.3, 0.1, 3.0), 0.2, 1.6)],
    "block": [Block((-0.8, 0.3, 2.0), (0.5, 0.4, 0.2))],
    "turned block": [Block((0.5, 0.2, 2.5), (0.8, 0.5, 0.1), 0.5)],
    "far": [Block((1.0, -0.4, 5.0), (0.5, 0.5, 0.2))],
    "at the border": [Post((-1.6, 0.0, 2.6), 0.25, 1.2)],
    "one before the other": [Post((0.0, 0.0, 4.0), 0.4, 1.5), Block((0.25, 0.4, 2.0), (0.15, 0.8, 0.1))],
}


def place_by_depth(lens_or_up, depth, box_px, instances=None, number=0) -> Placement:
    lens, up = (lens_or_up, CAMERA_UP) if isinstance(lens_or_up, str) else ("pinhole", lens_or_up)
    return CameraView(camera(lens), 30.0, up, 0.0, depth, instances).place(box_px, number)


def place_on_ground(lens, up, height_m, box_px) -> Placement:
    return CameraView(camera(lens), 30.0, up, height_m).place(box_px)


def check_place(place: Placement, truth_m: np.ndarray, tolerance: float = 0.02) -> None:
    error = np.linalg.norm(place.center_m - truth_m) / np.linalg.norm(truth_m)
    assert error <= tolerance, f"{place.center_m} is {error:.1%} from {truth_m}"
    assert np.allclose(place.axes.T @ place.axes, np.eye(3), atol=1e-9) and np.linalg.det(place.axes) > 0
    assert (place.size_m > 0).all()
    assert np.linalg.eigvalsh(place.covariance_m2).min() > 0


@pytest.mark.parametrize("lens", ["pinhole", "plumb_bob", "equidistant"])
@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("with_mask", [False, True])
def test_within_2_percent_of_the_truth_with_30_percent_invalid_depth(name, lens, with_mask):
    picture = render(SCENES[name], lens)
    depth = depth_image(spoiled(picture, np.random.default_rng(7)))
    bled = cv2.dilate(picture.numbers, np.ones((5, 5), np.uint8))  # A mask that is two pixels too large.
    for number in range(1, len(SCENES[name]) + 1):
        box_px = picture.box_px(number)
        place = place_by_depth(lens, depth, box_px, bled if with_mask else None, number)
        check_place(place, picture.truth_m(number, with_mask))


@pytest.mark.parametrize(("noisy", "tolerance"), [(False, 0.04), (True, 0.12)])
@pytest.mark.parametrize("with_mask", [False, True])
def test_sizes_are_those_of_the_object(noisy, tolerance, with_mask):
    picture = render([Block((0.2, 0.1, 2.0), (0.6, 0.4, 0.2))])
    depth_m = spoiled(picture, np.random.default_rng(1)) if noisy else picture.depth_m.astype(np.float32)
    instances = picture.numbers if with_mask else None
    place = place_by_depth("pinhole", depth_image(depth_m), picture.box_px(1), instances, 1)
    assert place.size_m[1:] == pytest.approx([0.6, 0.4], rel=tolerance if with_mask or noisy else 0.06)
    assert place.size_m[0] < 0.15, "the front is flat"


@pytest.mark.parametrize("yaw_deg", [-40, -15, 0, 25, 43])
def test_a_mask_gives_the_yaw(yaw_deg):
    picture = render([Block((0.3, 0.2, 3.0), (1.2, 0.6, 0.02), np.radians(yaw_deg))])
    depth = depth_image(spoiled(picture, np.random.default_rng(2)))
    place = place_by_depth("pinhole", depth, picture.box_px(1), picture.numbers, 1)
    # A block's turn is about the camera's y, which points down: its front then faces the other way.
    found_deg = np.degrees(np.arctan2(place.axes[0, 0], place.axes[2, 0]))
    assert found_deg == pytest.approx(yaw_deg, abs=4)
    assert place.size_m[1] == pytest.approx(1.2, rel=0.1)


def test_a_round_footprint_has_no_yaw():
    picture = render([Post((0.0, 0.0, 2.0), 0.3, 0.8)])
    points = picture.points_m[picture.numbers == 1]
    assert np.ptp(points[:, 2]) > 0.2
    place = place_by_depth(
        "pinhole", depth_image(picture.depth_m.astype(np.float32)), picture.box_px(1), picture.numbers, 1
    )
    assert place.axes[:, 0] == pytest.approx([0, 0, 1], abs=0.05)


def test_a_mask_separates_what_the_box_cannot():
    """A thin object before a close wall: most of its box is wall."""
    picture = render([Block((0.0, 0.0, 2.0), (1.0, 0.06, 0.05), 0.0)], wall_m=2.15)
    place = place_by_depth(
        "pinhole", depth_image(picture.depth_m.astype(np.float32)), picture.box_px(1), picture.numbers, 1
    )
    check_place(place, picture.truth_m(1, True), 0.01)


@pytest.mark.parametrize("kind", ["millimetres", "disparity", "half size"])
def test_every_kind_of_depth_gives_the_same_place(kind):
    picture = render(SCENES["person"])
    depth_m = spoiled(picture, np.random.default_rng(3))
    with np.errstate(divide="ignore", invalid="ignore"):
        images = {
            "millimetres": lambda: depth_image(in_millimetres(depth_m), 0.001),
            "disparity": lambda: depth_image((50.0 / depth_m).astype("f4"), 50.0, disparities=(1.0, 128.0)),
            "half size": lambda: depth_image(depth_m[::2, ::2]),
        }
        check_place(place_by_depth("pinhole", images[kind](), picture.box_px(1)), picture.truth_m(1))


@pytest.mark.parametrize("pitch_deg", [-30, 0, 35, 70])
def test_with_a_level_frame_an_upright_object_is_upright(pitch_deg):
    """The camera looks down by this angle; the block stands upright in the world."""
    c, s = np.cos(np.radians(pitch_deg)), np.sin(np.radians(pitch_deg))
    to_camera = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    center = np.array([0.3, 0.2, 3.0])
    rays = render([]).points_m / 6.0
    level_rays = rays @ to_camera  # The same rays, in a level frame.
    block = Block(tuple(to_camera.T @ center), (0.5, 0.7, 0.04))
    depth = block.hit(level_rays)
    numbers = np.isfinite(depth).astype(np.uint16)
    picture = Picture(np.where(numbers, depth, 9.0), numbers, rays * np.where(numbers, depth, 9.0)[..., None])
    up = to_camera @ (0.0, -1.0, 0.0)
    image = depth_image(picture.depth_m.astype(np.float32))
    for instances in (None, numbers):
        place = place_by_depth(up, image, picture.box_px(1), instances, 1)
        assert place.axes[:, 2] == pytest.approx(up)
        assert np.linalg.norm(place.center_m - center) <= 0.04 * np.linalg.norm(center)
        if abs(pitch_deg) < 50:
            assert place.size_m[1:] == pytest.approx([0.5, 0.7], rel=0.2)


# Laws.
pixels = st.tuples(st.floats(5, WIDTH - 5), st.floats(5, HEIGHT - 5))


@settings(deadline=None, max_examples=60)
@given(pixels, st.floats(-0.15, 0.2), st.floats(0, 0.1), st.floats(-0.002, 0.002))
def test_a_projected_ray_is_its_pixel(pixel, k1, k2, p1):
    matrix = camera().matrix
    one = CameraModel(matrix, np.array([k1, k2, p1, -p1, 0.0]), WIDTH, HEIGHT)
    ray = one.rays(np.array([pixel]))
    seen, _ = cv2.projectPoints(ray, np.zeros(3), np.zeros(3), matrix, one.distortion)
    assert seen.ravel() + 0.5 == pytest.approx(pixel, abs=0.01)


@settings(deadline=None, max_examples=60)
@given(pixels, st.lists(st.floats(-0.02, 0.02), min_size=4, max_size=4))
def test_a_projected_ray_of_a_fisheye_is_its_pixel(pixel, k):
    one = CameraModel(camera().matrix, np.array(k), WIDTH, HEIGHT, "equidistant")
    ray = one.rays(np.array([pixel]))
    seen, _ = cv2.fisheye.projectPoints(ray[None], np.zeros(3), np.zeros(3), one.matrix, one.distortion)
    assert seen.ravel() + 0.5 == pytest.approx(pixel, abs=0.01)


@settings(deadline=None, max_examples=60)
@given(
    st.floats(0.3, 3.0),
    st.floats(-25, 60),
    st.floats(-10, 10),
    st.floats(1.0, 15.0),
    st.floats(-2, 2),
    st.sampled_from(["pinhole", "plumb_bob"]),
)
def test_the_foot_of_an_object_on_the_ground(height_m, pitch_deg, roll_deg, ahead_m, aside_m, lens):
    """A point of the ground is projected; the box above it must lead back to it."""
    pitch, roll = np.radians([pitch_deg, roll_deg])
    turn = cv2.Rodrigues(np.array([pitch, 0, 0]))[0] @ cv2.Rodrigues(np.array([0, 0, roll]))[0]
    up = turn @ (0.0, -1.0, 0.0)
    foot = turn @ (aside_m, height_m, ahead_m)
    one = camera(lens)
    seen, _ = cv2.projectPoints(foot[None], np.zeros(3), np.zeros(3), one.matrix, one.distortion)
    x, y = seen.ravel() + 0.5
    if foot[2] < 0.3 or not (40 < x < WIDTH - 40 and 80 < y < HEIGHT - 5):
        return  # Not in the image.
    place = place_on_ground(lens, up, height_m, np.array([x - 10, y - 60, x + 10, y]))
    found = place.center_m - up * place.size_m[2] / 2
    assert found == pytest.approx(foot, rel=1e-3, abs=1e-3)
    assert place.size_m[0] == place.size_m[1]


# Bad input.
def reason_of(call) -> str:
    with pytest.raises(LocalizationError) as caught:
        call()
    assert "expected" in str(caught.value)
    return caught.value.reason


@pytest.mark.parametrize(
    "box",
    [
        (10, 10, 10, 30),
        (30, 30, 10, 10),
        (-90, -90, -10, -10),
        (WIDTH + 5, 5, WIDTH + 50, 90),
        (np.nan, 0, 10, 10),
        (0, 0, np.inf, np.nan),
        (10, 10, 10.4, 400),
    ],
)
def test_a_degenerate_box_is_refused(box):
    depth = depth_image(np.full((HEIGHT, WIDTH), 2.0, np.float32))
    box_px = np.array(box, float)
    assert reason_of(lambda: place_by_depth("pinhole", depth, box_px)) == "bad_box"
    assert reason_of(lambda: place_on_ground("pinhole", CAMERA_UP, 1.0, box_px)) == "bad_box"


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, -1.0, 31.0, 1e-45])
def test_without_valid_depth_there_is_no_place(value):
    depth = depth_image(np.full((HEIGHT, WIDTH), value, np.float32))
    if value == 1e-45:
        depth = depth_image(depth.values, 50.0, disparities=(1.0, 64.0))
    box_px = np.array([100.0, 100, 200, 200])
    assert reason_of(lambda: place_by_depth("pinhole", depth, box_px)) == "no_depth"
    ones = np.ones((HEIGHT, WIDTH), np.uint16)
    assert reason_of(lambda: place_by_depth("pinhole", depth, box_px, ones, 1)) == "no_depth"


def test_an_object_without_pixels_in_the_masks_is_placed_by_its_box():
    picture = render(SCENES["block"])
    depth = depth_image(picture.depth_m.astype(np.float32))
    place = place_by_depth("pinhole", depth, picture.box_px(1), np.zeros((HEIGHT, WIDTH), np.uint16), 1)
    check_place(place, picture.truth_m(1))


@pytest.mark.parametrize(
    ("box", "height_m", "reason"),
    [
        ((100, 100, 200, HEIGHT), 1.0, "cut_off"),
        ((100, 100, 200, 200), 1.0, "above_horizon"),
        ((100, 100, 200, 400), -1.0, "above_horizon"),
        ((100, 100, 200, 239), 1.0, "out_of_range"),
    ],
)
def test_an_object_that_is_not_on_the_visible_ground(box, height_m, reason):
    assert reason_of(lambda: place_on_ground("pinhole", CAMERA_UP, height_m, np.array(box, float))) == reason


@pytest.mark.parametrize(
    "fields",
    [
        {"matrix": np.zeros((3, 3))},
        {"matrix": np.full((3, 3), np.nan)},
        {"distortion": np.array([0.1, np.nan, 0, 0, 0])},
        {"distortion": np.array([0.1, 0.1])},
        {"model": "my_own", "distortion": np.full(5, 0.1)},
        {"model": "equidistant", "distortion": np.full(5, 0.1)},
        {"width_px": 0},
    ],
)
def test_an_unusable_calibration_is_refused(fields):
    good = {"matrix": camera().matrix, "distortion": np.zeros(5), "width_px": WIDTH, "height_px": HEIGHT}
    assert reason_of(lambda: CameraModel(**{**good, **fields})) == "bad_camera_info"


@pytest.mark.parametrize(
    ("model", "distortion"),
    [("plumb_bob", [-0.4, 0, 0, 0, 0]), ("equidistant", [0.0] * 4), ("equidistant", [-0.3, 0, 0, 0])],
)
def test_where_the_lens_is_not_calibrated_there_is_no_place(model, distortion):
    """The corner is beyond the radius at which the polynomial turns, or beside the camera."""
    matrix = camera().matrix * (0.5 if model == "equidistant" else 1)
    matrix[:, 2] = camera().matrix[:, 2]
    depth = depth_image(np.full((HEIGHT, WIDTH), 2.0, np.float32))
    view = CameraView(
        CameraModel(matrix, np.array(distortion), WIDTH, HEIGHT, model), 30.0, CAMERA_UP, 0.0, depth
    )
    assert reason_of(lambda: view.place(np.array([0.0, 0.0, 8.0, 8.0]))) == "bad_box"
    assert view.place(np.array([300.0, 220.0, 340.0, 260.0])).center_m[2] == pytest.approx(2, rel=0.01)


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), max_size=60))
def test_any_depths_give_a_window_of_them_or_none(values):
    depth_m = np.array(values, np.float32)
    depth_m[~(depth_m > 0)] = np.nan
    found = nearest_surface(depth_m)
    valid = depth_m[np.isfinite(depth_m)]
    assert found is None or ((valid >= found[0]) & (valid <= found[1])).any()


EXTREME = st.sampled_from([0.0, -1.0, 1e-45, 0.4, 2.0, 29.0, 31.0, 3e38, np.inf, np.nan])
COORDINATES = st.one_of(st.floats(), st.floats(-50, WIDTH + 50), st.integers(0, WIDTH).map(float))


@settings(deadline=None, max_examples=150)
@given(
    st.lists(COORDINATES, min_size=4, max_size=4),
    st.lists(EXTREME, min_size=1, max_size=40),
    st.integers(0, 2**32 - 1),
    st.sampled_from(["pinhole", "plumb_bob", "equidistant"]),
    st.sampled_from(["depth", "disparity", "ground"]),
    st.lists(st.floats(-1, 1), min_size=3, max_size=3),
)
def test_any_input_gives_a_finite_place_or_a_reason(box, depths, seed, lens, kind, up):
    rng = np.random.default_rng(seed)
    norm = np.linalg.norm(up)
    upward = np.array(up) / norm if norm > 0.1 else CAMERA_UP
    limits = (0.4, 64.0) if kind == "disparity" else None
    depth = depth_image(rng.choice(np.array(depths, np.float32), (12, 16)), disparities=limits)
    instances = rng.integers(0, 3, (24, 32)).astype(np.uint16)
    view = CameraView(camera(lens), 30.0, upward, 1.2, None if kind == "ground" else depth, instances)
    try:
        place = view.place(np.array(box), int(rng.integers(0, 4)))
    except LocalizationError as error:
        assert "expected" in str(error)
        return
    for values in (place.center_m, place.axes, place.size_m, place.covariance_m2):
        assert np.isfinite(values).all()
    assert (place.size_m >= 0).all() and np.linalg.norm(place.center_m) < 1000
