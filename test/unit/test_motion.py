"""What is new on a moving camera: real pictures, known camera paths, things that come, stand and go."""

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


class Watch:
    """An estimator that is shown pictures; the first one is its anchor."""

    def __init__(self, config: MotionConfig = CONFIG) -> None:
        self.estimator, self.config = MotionEstimator(), config
        self.seed = 0

    def show(self, at: np.ndarray, prior: np.ndarray | None = None, **look) -> Motion:
        self.seed += 1
        return self.estimator.observe(luma(picture(at, self.seed, **look)), self.config, prior)


@cameras
def test_a_scene_in_which_nothing_happens_is_quiet(camera):
    watch = Watch()
    watch.show(camera(0))
    for step in range(1, 15):
        motion = watch.show(camera(step))
        assert not motion.changed, f"step {step}: {motion}"
        assert motion.camera == ("standing" if camera is standing else "moving")


@cameras
@pytest.mark.parametrize("side_px", [(24, 40), (60, 120)], ids=["small", "large"])
def test_a_thing_that_appears_is_seen_at_once_and_where_it_is(camera, side_px):
    watch = Watch()
    for step in range(8):
        watch.show(camera(step))
    motion = watch.show(camera(8), box=(300, 150, *side_px))
    assert motion.changed
    regions = watch.estimator.regions(640, 360)
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
def test_a_slow_thing_stays_seen_while_it_is_there_and_is_gone_when_it_leaves(camera):
    watch = Watch()
    watch.show(camera(0))
    for step in range(1, 10):
        assert watch.show(camera(step), box=(240 + step, 120, 50, 100)).changed
    assert not watch.show(camera(10)).changed


def test_what_stands_still_is_settled_and_what_moves_is_not():
    watch = Watch()
    watch.show(standing(0))
    watch.show(standing(1), box=(240, 120, 50, 100))
    watch.estimator.mark()
    assert watch.show(standing(2), box=(240, 120, 50, 100)).changed
    assert watch.estimator.settled()
    assert watch.show(standing(3), box=(244, 120, 50, 100)).changed
    assert not watch.estimator.settled()


def test_rebase_makes_the_thing_part_of_the_scene():
    watch = Watch()
    watch.show(standing(0))
    assert watch.show(standing(1), box=(240, 120, 50, 100)).changed
    watch.estimator.rebase()
    assert not watch.show(standing(2), box=(240, 120, 50, 100)).changed
    assert watch.show(standing(3)).changed


def test_the_camera_motion_is_that_between_two_pictures_over_a_rebase_too():
    watch = Watch()
    watch.show(panning(0))
    for step in range(1, 12):
        motion = watch.show(panning(step))
        true = luma_motion(panning(step - 1), panning(step))
        assert motion.camera_motion is not None
        assert largest_shift_px(np.linalg.inv(true) @ motion.camera_motion, SHAPE) < 0.4
        if step % 4 == 0:
            watch.estimator.rebase()


def test_new_view_is_the_share_that_the_last_seen_picture_did_not_show():
    watch = Watch()
    watch.show(pose(450, 420))
    watch.estimator.seen()
    assert watch.show(pose(450 + 32, 420)).new_view == pytest.approx(0.05, abs=0.004)
    assert watch.show(pose(450 + 64, 420)).new_view == pytest.approx(0.10, abs=0.004)
    watch.estimator.seen()
    assert watch.show(pose(450 + 64, 420 + 36)).new_view == pytest.approx(0.10, abs=0.005)


def test_a_light_step_is_told_and_is_no_motion():
    watch = Watch()
    watch.show(standing(0))
    assert watch.show(standing(1)).light_step < 1.5
    dark = watch.show(standing(2), gain=0.75)
    assert dark.light_step > 15 and not dark.changed
    assert watch.show(standing(3), gain=0.75).light_step < 2
    assert watch.show(standing(4), gain=0.75, box=(240, 120, 50, 100)).changed


def test_light_that_drifts_is_no_step():
    watch = Watch()
    watch.show(standing(0))
    for step in range(1, 20):
        motion = watch.show(standing(step), gain=1.0 - 0.01 * step)
        assert motion.light_step < 3 and not motion.changed


@pytest.mark.parametrize("noise", [0.0, 4.0, 10.0, 20.0])
def test_the_threshold_follows_the_noise(noise):
    watch = Watch()
    watch.show(standing(0), noise=noise)
    assert not any(watch.show(standing(step), noise=noise).changed for step in range(1, 12))
    assert watch.show(standing(12), noise=noise, box=(240, 120, 50, 100)).changed


def test_another_scene_is_unknown_and_then_known():
    watch = Watch()
    watch.show(pose(330, 190))
    motion = watch.show(pose(820, 660))
    assert motion.camera == "unknown" and motion.changed and motion.camera_motion is None
    watch.estimator.rebase()
    assert watch.show(pose(820, 660)).camera == "standing"


def test_without_ego_motion_the_camera_counts_as_standing():
    watch = Watch(MotionConfig(ego_motion=False))
    watch.show(panning(0))
    motion = watch.show(panning(4))
    assert motion.camera == "standing" and motion.changed


def test_a_prior_leads_where_the_way_is_too_long_to_be_found():
    before, after = pose(420, 420), pose(420 + 170, 420)
    prior = luma_motion(before, after)
    plain, led = Watch(), Watch()
    plain.show(before)
    led.show(before)
    assert led.show(after, prior=prior).camera == "moving"
    assert plain.show(after).camera in ("unknown", "moving")


def near_thing(step: int, ratio: float) -> dict:
    """A post that stands nearer: it moves `ratio` times as far as the scene of `panning`."""
    return {"box": (round(420 - 3.3 * ratio * step), -10, 40, 400)}


@pytest.mark.parametrize("ratio,steps", [(1.5, 8), (2.0, 6), (3.0, 3)])
def test_a_near_thing_that_was_in_view_is_parallax_not_news(ratio, steps):
    """As long as it uncovers little: a part of the scene that was never in view is news indeed."""
    watch = Watch()
    watch.show(panning(0), **near_thing(0, ratio))
    for step in range(1, steps + 1):
        assert not watch.show(panning(step), **near_thing(step, ratio)).changed, step


def test_a_thing_that_was_not_in_view_is_news_beside_parallax():
    watch = Watch()
    watch.show(panning(0))
    assert watch.show(panning(1), box=(200, 60, 60, 140)).changed


def test_cells_and_known_boxes_say_where():
    watch = Watch()
    watch.show(standing(0))
    watch.show(standing(1), box=(480, 240, 80, 80))
    cells = watch.estimator.cells()
    assert cells.shape == CELLS and cells[6:, 12:].any() and not cells[:5, :].any()
    assert not watch.estimator.changed_beside(np.array([[235.0, 115.0, 285.0, 165.0]]))
    assert watch.estimator.changed_beside(np.array([[235.0, 115.0, 250.0, 165.0]]))
    assert watch.estimator.changed_beside(np.zeros((0, 4)))


def test_boxes_outside_the_picture_cover_nothing():
    watch = Watch()
    watch.show(standing(0))
    watch.show(standing(1), box=(480, 240, 80, 80))
    assert watch.estimator.changed_beside(
        np.array([[-900.0, -900.0, -10.0, -10.0], [900.0, 0.0, 950.0, 20.0]])
    )


def test_another_size_starts_anew():
    watch = Watch()
    watch.show(standing(0))
    half = luma(picture(standing(1)))[:90, :160]
    assert watch.estimator.observe(np.ascontiguousarray(half), CONFIG).camera == "unknown"
    assert watch.estimator.observe(np.ascontiguousarray(half), CONFIG).camera == "standing"


def test_the_background_is_large_enough_for_these_paths():
    height, width = background().shape[:2]
    for camera in CAMERAS.values():
        for step in range(15):
            centre = np.linalg.inv(camera(step)) @ np.array([320.0, 180.0, 1.0])
            assert 290 < centre[0] < width - 290 and 160 < centre[1] < height - 160


def test_a_camera_that_creeps_is_found_to_move_before_anything_differs():
    watch = Watch()
    watch.show(standing(0))
    cameras = [
        watch.show(pose(500 + 0.12 * step, 420, zoom=1.0 + 0.0003 * step)).camera for step in range(1, 30)
    ]
    assert "moving" in cameras and not watch.show(pose(503.5, 420, zoom=1.009)).changed


def test_a_camera_that_stands_is_never_found_to_creep():
    watch = Watch()
    watch.show(standing(0), noise=8.0)
    assert {watch.show(standing(step), noise=8.0).camera for step in range(1, 60)} == {"standing"}


def test_parallax_can_be_switched_off():
    watch = Watch(MotionConfig(parallax=False))
    watch.show(panning(0), **near_thing(0, 2.0))
    assert any(watch.show(panning(step), **near_thing(step, 2.0)).changed for step in range(1, 7))
