"""Change detection on a moving camera: real images, known camera paths, objects that come, stop and go."""

from __future__ import annotations

import numpy as np
import pytest
from motion_cases import background, luma, luma_motion, picture, pose

from edge_vision.gate.motion.comparison import MotionConfig
from edge_vision.gate.motion.ego_motion import largest_shift_px
from edge_vision.gate.motion.estimator import CELLS, Motion, MotionEstimator

CONFIG = MotionConfig()
SHAPE = (180, 320)


def standing(step: int) -> np.ndarray:
    return pose(500, 420)


def panning(step: int) -> np.ndarray:
    return pose(450 + 3.3 * step, 420 + 0.7 * step)


def zooming(step: int) -> np.ndarray:
    return pose(520, 420, zoom=1.0 + 0.006 * step)


def shaking(step: int) -> np.ndarray:
    return pose(500 + 6 * np.sin(2.1 * step), 420 + 5 * np.cos(1.3 * step), turn=0.01 * np.sin(step))


CAMERAS = {"standing": standing, "panning": panning, "zooming": zooming, "shaking": shaking}
cameras = pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)


class Sequence:
    """An estimator and the images that it is given; the first one is its anchor."""

    def __init__(self, config: MotionConfig = CONFIG) -> None:
        self.estimator, self.config = MotionEstimator(), config
        self.seed = 0

    def show(self, at: np.ndarray, prior: np.ndarray | None = None, **options) -> Motion:
        self.seed += 1
        return self.estimator.observe(luma(picture(at, self.seed, **options)), self.config, prior)


@cameras
def test_a_static_scene_is_unchanged(camera):
    sequence = Sequence()
    sequence.show(camera(0))
    for step in range(1, 15):
        motion = sequence.show(camera(step))
        assert not motion.changed, f"step {step}: {motion}"
        assert motion.camera == ("standing" if camera is standing else "moving")


@cameras
@pytest.mark.parametrize("side_px", [(24, 40), (60, 120)], ids=["small", "large"])
def test_an_object_that_appears_is_detected_at_once_with_its_region(camera, side_px):
    sequence = Sequence()
    for step in range(8):
        sequence.show(camera(step))
    motion = sequence.show(camera(8), box=(300, 150, *side_px))
    assert motion.changed
    regions = sequence.estimator.regions(640, 360)
    inside = [
        region
        for region in regions
        if region[0] < 300 + side_px[0]
        and region[2] > 300
        and region[1] < 150 + side_px[1]
        and region[3] > 150
    ]
    assert inside and len(regions) <= 3


@cameras
def test_a_slow_object_is_a_change_while_it_is_in_view(camera):
    sequence = Sequence()
    sequence.show(camera(0))
    for step in range(1, 10):
        assert sequence.show(camera(step), box=(240 + step, 120, 50, 100)).changed
    assert not sequence.show(camera(10)).changed


def test_a_stationary_object_is_settled_and_a_moving_one_is_not():
    sequence = Sequence()
    sequence.show(standing(0))
    sequence.show(standing(1), box=(240, 120, 50, 100))
    sequence.estimator.mark()
    assert sequence.show(standing(2), box=(240, 120, 50, 100)).changed
    assert sequence.estimator.settled()
    assert sequence.show(standing(3), box=(244, 120, 50, 100)).changed
    assert not sequence.estimator.settled()


def test_rebase_makes_an_object_part_of_the_scene():
    sequence = Sequence()
    sequence.show(standing(0))
    assert sequence.show(standing(1), box=(240, 120, 50, 100)).changed
    sequence.estimator.rebase()
    assert not sequence.show(standing(2), box=(240, 120, 50, 100)).changed
    assert sequence.show(standing(3)).changed


def test_the_camera_motion_is_relative_to_the_previous_image_across_a_rebase():
    sequence = Sequence()
    sequence.show(panning(0))
    for step in range(1, 12):
        motion = sequence.show(panning(step))
        true = luma_motion(panning(step - 1), panning(step))
        assert motion.camera_motion is not None
        assert largest_shift_px(np.linalg.inv(true) @ motion.camera_motion, SHAPE) < 0.4
        if step % 4 == 0:
            sequence.estimator.rebase()


def test_new_view_is_the_share_outside_the_last_inferred_image():
    sequence = Sequence()
    sequence.show(pose(450, 420))
    sequence.estimator.seen()
    assert sequence.show(pose(450 + 32, 420)).new_view == pytest.approx(0.05, abs=0.004)
    assert sequence.show(pose(450 + 64, 420)).new_view == pytest.approx(0.10, abs=0.004)
    sequence.estimator.seen()
    assert sequence.show(pose(450 + 64, 420 + 36)).new_view == pytest.approx(0.10, abs=0.005)


def test_a_light_step_is_reported_and_is_no_change():
    sequence = Sequence()
    sequence.show(standing(0))
    assert sequence.show(standing(1)).light_step < 1.5
    dark = sequence.show(standing(2), gain=0.75)
    assert dark.light_step > 15 and not dark.changed
    assert sequence.show(standing(3), gain=0.75).light_step < 2
    assert sequence.show(standing(4), gain=0.75, box=(240, 120, 50, 100)).changed


def test_drifting_light_is_no_step():
    sequence = Sequence()
    sequence.show(standing(0))
    for step in range(1, 20):
        motion = sequence.show(standing(step), gain=1.0 - 0.01 * step)
        assert motion.light_step < 3 and not motion.changed


@pytest.mark.parametrize("noise", [0.0, 4.0, 10.0, 20.0])
def test_the_threshold_follows_the_noise(noise):
    sequence = Sequence()
    sequence.show(standing(0), noise=noise)
    assert not any(sequence.show(standing(step), noise=noise).changed for step in range(1, 12))
    assert sequence.show(standing(12), noise=noise, box=(240, 120, 50, 100)).changed


def test_another_scene_is_unknown_until_it_is_the_anchor():
    sequence = Sequence()
    sequence.show(pose(330, 190))
    motion = sequence.show(pose(820, 660))
    assert motion.camera == "unknown" and motion.changed and motion.camera_motion is None
    sequence.estimator.rebase()
    assert sequence.show(pose(820, 660)).camera == "standing"


def test_without_ego_motion_the_camera_counts_as_standing():
    sequence = Sequence(MotionConfig(ego_motion=False))
    sequence.show(panning(0))
    motion = sequence.show(panning(4))
    assert motion.camera == "standing" and motion.changed


def test_a_prior_helps_with_a_motion_too_large_for_tracking():
    before, after = pose(420, 420), pose(420 + 170, 420)
    prior = luma_motion(before, after)
    plain, with_prior = Sequence(), Sequence()
    plain.show(before)
    with_prior.show(before)
    assert with_prior.show(after, prior=prior).camera == "moving"
    assert plain.show(after).camera in ("unknown", "moving")


def near_object(step: int, ratio: float) -> dict:
    """A near post: it moves `ratio` times as far as the scene of `panning`."""
    return {"box": (round(420 - 3.3 * ratio * step), -10, 40, 400)}


@pytest.mark.parametrize("ratio,steps", [(1.5, 8), (2.0, 6), (3.0, 3)])
def test_a_near_object_that_was_in_view_is_parallax(ratio, steps):
    """As long as it uncovers little: background that was never in view is a change."""
    sequence = Sequence()
    sequence.show(panning(0), **near_object(0, ratio))
    for step in range(1, steps + 1):
        assert not sequence.show(panning(step), **near_object(step, ratio)).changed, step


def test_an_object_that_was_not_in_view_is_no_parallax():
    sequence = Sequence()
    sequence.show(panning(0))
    assert sequence.show(panning(1), box=(200, 60, 60, 140)).changed


def test_cells_and_known_boxes_locate_the_change():
    sequence = Sequence()
    sequence.show(standing(0))
    sequence.show(standing(1), box=(480, 240, 80, 80))
    cells = sequence.estimator.cells()
    assert cells.shape == CELLS and cells[6:, 12:].any() and not cells[:5, :].any()
    assert not sequence.estimator.changed_beside(np.array([[235.0, 115.0, 285.0, 165.0]]))
    assert sequence.estimator.changed_beside(np.array([[235.0, 115.0, 250.0, 165.0]]))
    assert sequence.estimator.changed_beside(np.zeros((0, 4)))


def test_boxes_outside_the_image_cover_nothing():
    sequence = Sequence()
    sequence.show(standing(0))
    sequence.show(standing(1), box=(480, 240, 80, 80))
    assert sequence.estimator.changed_beside(
        np.array([[-900.0, -900.0, -10.0, -10.0], [900.0, 0.0, 950.0, 20.0]])
    )


def test_another_image_size_starts_again():
    sequence = Sequence()
    sequence.show(standing(0))
    half = luma(picture(standing(1)))[:90, :160]
    assert sequence.estimator.observe(np.ascontiguousarray(half), CONFIG).camera == "unknown"
    assert sequence.estimator.observe(np.ascontiguousarray(half), CONFIG).camera == "standing"


def test_the_background_is_large_enough_for_these_paths():
    height, width = background().shape[:2]
    for camera in CAMERAS.values():
        for step in range(15):
            centre = np.linalg.inv(camera(step)) @ np.array([320.0, 180.0, 1.0])
            assert 290 < centre[0] < width - 290 and 160 < centre[1] < height - 160


def test_a_creeping_camera_is_detected_before_a_change():
    sequence = Sequence()
    sequence.show(standing(0))
    cameras = [
        sequence.show(pose(500 + 0.12 * step, 420, zoom=1.0 + 0.0003 * step)).camera for step in range(1, 30)
    ]
    assert "moving" in cameras and not sequence.show(pose(503.5, 420, zoom=1.009)).changed


def test_a_standing_camera_is_never_detected_as_creeping():
    sequence = Sequence()
    sequence.show(standing(0), noise=8.0)
    assert {sequence.show(standing(step), noise=8.0).camera for step in range(1, 60)} == {"standing"}


def test_parallax_compensation_can_be_disabled():
    sequence = Sequence(MotionConfig(parallax=False))
    sequence.show(panning(0), **near_object(0, 2.0))
    assert any(sequence.show(panning(step), **near_object(step, 2.0)).changed for step in range(1, 7))
