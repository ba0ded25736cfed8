"""The constructed sequences: deterministic frames, with boxes that match the drawn objects."""

from __future__ import annotations

from collections import Counter
from itertools import islice

import cv2
import numpy as np
import pytest
from evaluate_cases import needs_clips

from edge_vision.evaluate.conditions import Condition
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.sequences import actors, camera, compose, light
from edge_vision.evaluate.sequences.cutouts import Sprite, cutout
from edge_vision.evaluate.sequences.recipes import HOLDOUT_ONLY, MAIN, by_name, conditions
from edge_vision.evaluate.sequences.sequence import Sequence, Shot

WANTED = {
    "static", "long_quiet", "pan_tilt", "drive_zoom", "parallax_1_5", "parallax_3", "light_steps",
    "low_light_noise", "shake",
}  # fmt: skip


def test_each_main_condition_has_a_tune_and_a_holdout_sequence() -> None:
    assert set(MAIN) == WANTED
    assert {c.kind for c in conditions("tune")} == WANTED
    assert {c.kind for c in conditions("holdout")} == WANTED | set(HOLDOUT_ONLY)
    everything = conditions("all")
    assert len({c.name for c in everything}) == len(everything) == 2 * len(MAIN) + len(HOLDOUT_ONLY)
    assert all(c.constructed and c.fps_hz == 30 for c in everything)


def test_an_unknown_split_or_name_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EvaluateError, match="tune, holdout, all, got 'train'"):
        conditions("train")
    with pytest.raises(EvaluateError, match=r"static.*got 'statik'"):
        by_name("statik")
    for wrong in ("static@", "static@x", "static@-1", "@3"):
        with pytest.raises(EvaluateError, match=f"or NAME@SEED .*got '{wrong}'"):
            by_name(wrong)


def _sprite(height: int = 100) -> Sprite:
    """A red figure with soft edges."""
    alpha = np.zeros((height + 20, 60), np.float32)
    alpha[10:-10, 15:45] = 1
    image = np.zeros((*alpha.shape, 3), np.uint8)
    image[:] = (10, 20, 240)
    return Sprite("red", "person", (cutout(image, cv2.GaussianBlur(alpha, (0, 0), 1)),), 1, height, "red")


@pytest.mark.parametrize("roll", [0.0, 0.05])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(("x", "y"), [(320.0, 300.0), (56.0, 300.0), (585.0, 350.0), (320.4, 60.7)])
def test_the_truth_box_is_on_the_object(x: float, y: float, flip: bool, roll: float) -> None:
    image = np.full((360, 640, 3), 128, np.uint8)
    placed = actors.Placed(1, _sprite(), 0, (x, y), 1.3, flip)
    affine = compose.placed_affine(placed, camera.to_screen(np.array([320.0, 180.0, 1.2, roll])))
    compose.paste(image, placed.sprite.pictures[0], affine)
    box = compose.visible_box(placed.sprite.pictures[0], affine)
    red = (image[:, :, 2] > 180) & (image[:, :, 0] < 70)
    assert box is not None
    rows, columns = np.flatnonzero(red.any(1)), np.flatnonzero(red.any(0))
    seen = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    # A turned box is the one around its corners.
    assert box == pytest.approx(seen, abs=2.0 if roll == 0 else 9.0)


def test_pasting_leaves_no_black_rim() -> None:
    image = np.full((360, 640, 3), 128, np.uint8)
    sprite = _sprite()
    compose.paste(image, sprite.pictures[0], np.array([[1.3, 0, 200.3], [0, 1.3, 100.6]]))
    # Between the grey and the red there are only colours between the two.
    assert image[:, :, 1].min() >= 18
    assert image[:, :, 2].min() >= 126


def test_nothing_is_visible_outside_the_picture() -> None:
    placed = actors.Placed(1, _sprite(), 0, (-60.0, 200.0), 1.0, False)
    affine = compose.placed_affine(placed, camera.to_screen(np.array([320.0, 180.0, 1.0, 0.0])))
    assert compose.visible_box(placed.sprite.pictures[0], affine) is None


def test_the_camera_shows_its_centre_in_the_middle_and_a_near_layer_moves_more() -> None:
    state, origin = np.array([500.0, 300.0, 1.5, 0.1]), np.array([480.0, 300.0])
    screen = camera.to_screen(state)
    assert screen @ (500, 300, 1) == pytest.approx((320, 180))
    level = np.array([500.0, 300.0, 1.0, 0.0])
    far = camera.to_screen(level) @ (0, 0, 1) - camera.to_screen(np.array([480.0, 300, 1, 0])) @ (0, 0, 1)
    near = camera.to_screen(level, origin, 3.0) @ (0, 0, 1)
    near -= camera.to_screen(np.array([480.0, 300, 1, 0]), origin, 3.0) @ (0, 0, 1)
    assert near == pytest.approx(3 * far)


@pytest.mark.parametrize("move", [camera.fixed, camera.pan_tilt, camera.drive, camera.sideways])
def test_a_camera_path_keeps_to_the_background(move: object) -> None:
    room = camera.Room(1500, 700)
    path = move(np.random.default_rng(4), 900, room)  # type: ignore[operator]
    assert path.shape == (900, 4)
    assert (path[:, :2] >= room.low - 1e-6).all()
    assert (path[:, :2] <= room.high + 1e-6).all()


def test_pans_stop_and_go() -> None:
    path = camera.pan_tilt(np.random.default_rng(4), 900, camera.Room(1500, 700))
    speed = np.abs(np.diff(path[:, 0]))
    assert 0.2 < (speed == 0).mean() < 0.9
    assert 2 < speed.max() <= 15


def test_an_object_of_the_background_that_comes_back_into_view_has_come_in_again() -> None:
    left, right = np.array([330.0, 190.0, 1.0, 0.0]), np.array([1300.0, 416.0, 1.0, 0.0])
    path = np.stack([left] * 10 + [right] * 10 + [left] * 70 + [right] * 10)
    truths = Shot("street", path, [], first_id=3000).fixtures()
    # The car of the street at 1137..1345 x 347..485, and nothing of the left part.
    assert [len(truth) for truth in truths] == [0] * 10 + [2] * 10 + [0] * 70 + [2] * 10
    ids = [object_id for truth in (truths[12], truths[95]) for object_id, _, _ in truth]
    assert len(set(ids)) == 4
    assert min(ids) >= 3000
    assert truths[12][0][1:] == ((157.0, 111.0, 365.0, 249.0), "car")


def test_visits_come_in_over_an_edge_and_leave() -> None:
    rng = np.random.default_rng(6)
    path = camera.fixed(rng, 900, camera.Room(1500, 700))
    visits = actors.plan(rng, 900, path, (_sprite(),), actors.Traffic())
    frames = actors.play(visits, path)
    assert len(visits) >= 25
    screen = camera.to_screen(path[0])
    for visit in visits[:10]:
        feet = [p.foot_px for frame in frames for p in frame if p.object_id == visit.object_id]
        x = [float((screen @ (*foot, 1))[0]) for foot in feet]
        assert not 0 < x[0] < 640
        assert any(0 < at < 640 for at in x)
        assert not 10 < x[-1] < 630


def test_noise_is_fresh_on_every_frame_and_of_its_deviation() -> None:
    rng = np.random.default_rng(1)
    grey = np.full((360, 640, 3), 120, np.uint8)
    one, two = (light.read_noise(rng, grey, 2.0).astype(int) - 120 for _ in range(2))
    assert one.std() == pytest.approx(2.0, rel=0.1)
    assert abs((one * two).mean()) < 0.1
    dark = light.shot_noise(rng, np.full_like(grey, 10), 3.0, 0.5).astype(int)
    bright = light.shot_noise(rng, np.full_like(grey, 100), 3.0, 0.5).astype(int)
    assert dark.std() == pytest.approx(np.sqrt(9 + 5), rel=0.1)
    assert bright.std() == pytest.approx(np.sqrt(9 + 50), rel=0.1)


@needs_clips
@pytest.mark.parametrize("name", ["pan_tilt", "shake_holdout"])
def test_a_condition_gives_the_same_pictures_each_time(name: str) -> None:
    first, second = (list(islice(by_name(name).frames(), 75)) for _ in range(2))
    for one, two in zip(first, second, strict=True):
        assert one.stamp_ns == two.stamp_ns
        assert one.truth == two.truth
        assert np.array_equal(one.image, two.image)
    assert first[0].image.shape == (360, 640, 3)
    assert first[0].image.dtype == np.uint8
    assert any(frame.truth for frame in first)
    assert by_name(name).make().fingerprint() == by_name(name).make().fingerprint()


@needs_clips
def test_the_splits_show_other_pictures() -> None:
    prints = {c.make().fingerprint() for c in conditions("all")}
    assert len(prints) == len(conditions("all"))
    tune, holdout = (next(by_name(name).frames()).image for name in ("static", "static_holdout"))
    assert np.abs(tune.astype(int) - holdout).mean() > 20


@needs_clips
def test_a_number_gives_another_sequence_of_the_same_kind_and_split() -> None:
    plain, other, same = (
        by_name(name) for name in ("pan_tilt_holdout", "pan_tilt_holdout@7", "pan_tilt_holdout@07")
    )
    assert (other.name, other.kind, other.split) == ("pan_tilt_holdout@7", plain.kind, "holdout")
    assert other.make().fingerprint() == same.make().fingerprint() != plain.make().fingerprint()


def _sequence(condition: Condition) -> Sequence:
    source = condition.make()
    assert isinstance(source, Sequence)
    return source


@needs_clips
@pytest.mark.parametrize("condition", conditions("all"), ids=lambda c: c.name)
def test_objects_are_visible_in_about_a_fifth_of_the_frames(condition: Condition) -> None:
    truths = list(_sequence(condition).truths())
    assert len(truths) == condition.n_frames
    share = sum(bool(truth) for truth in truths) / len(truths)
    if condition.kind in MAIN and condition.kind != "long_quiet":
        assert 0.17 < share < 0.22
    assert len({object_id for truth in truths for object_id, _, _ in truth}) >= 10


@needs_clips
@pytest.mark.parametrize("name", ["long_quiet", "long_quiet_holdout"])
def test_on_the_quiet_scene_visitors_are_rare_but_for_one_who_stands(name: str) -> None:
    seen = [{object_id for object_id, _, _ in truth} for truth in _sequence(by_name(name)).truths()]
    stays = Counter(object_id for ids in seen for object_id in ids)
    stander, frames = stays.most_common(1)[0]
    assert frames > 600
    assert sum(bool(ids - {stander}) for ids in seen) / len(seen) < 0.035
