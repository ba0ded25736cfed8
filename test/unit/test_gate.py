"""The whole gate on real pictures: what must and must not pass, the audit, feedback, the books of reasons."""

from __future__ import annotations

from collections import Counter
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
from box_cases import boxes
from hypothesis import given, settings
from hypothesis import strategies as st
from model_cases import video_frame
from motion_cases import picture, pose

from edge_vision.core.frame import Frame
from edge_vision.gate.frame_gate import FrameGate, GateConfig
from edge_vision.gate.policy import PASSES, SKIPS

MS = 1_000_000
PERIOD_MS = 1000 / 30
AT = pose(500, 420)
BOX = (240, 120, 60, 110)
QUIET_CONFIG = GateConfig(audit_rate=0.0)


class Player:
    """A gate that is shown pictures at 30 fps."""

    def __init__(self, config: GateConfig = QUIET_CONFIG, seed: int = 0, **changes) -> None:
        self.gate = FrameGate(replace(config, **changes), seed=seed)
        self.frames = 0

    @property
    def stamp_ns(self) -> int:
        return 1_000_000_000 + round(self.frames * PERIOD_MS * MS)

    def show(self, image: np.ndarray, encoding: str = "bgr8", prior=None):
        self.frames += 1
        return self.gate.decide(Frame(image, self.stamp_ns, "camera", encoding), self.stamp_ns, prior)

    def look(self, at: np.ndarray = AT, **what):
        return self.show(picture(at, self.frames, **what))

    def until_closed(self, at: np.ndarray = AT) -> None:
        for _ in range(6):
            self.look(at)
        assert not self.look(at).passed

    def set(self, **changes) -> None:
        self.gate.config = replace(self.gate.config, **changes)


def test_quiet_then_a_thing_then_quiet():
    player = Player()
    player.until_closed()
    assert player.look().reason == "still"
    decision = player.look(box=BOX)
    assert decision.reason == "motion"
    left, top, right, bottom = decision.regions[0]
    assert left <= 246 and top <= 126 and right >= 294 and bottom >= 224
    assert right - left < 110 and bottom - top < 160
    assert [player.look().reason for _ in range(3)] == ["closing", "closing", "still"]


def test_a_pan_saves_and_what_comes_into_it_passes_at_once():
    player = Player(max_new_view=0.1)
    reasons = [player.look(pose(450 + 2.5 * step, 420)).reason for step in range(24)]
    assert reasons.count("compensated") >= 16, reasons
    decision = player.look(pose(450 + 2.5 * 24, 420), box=BOX)
    assert decision.reason == "motion"
    assert decision.camera_motion is not None
    assert decision.camera_motion[:2, 2] == pytest.approx([-2.5, 0.0], abs=0.5)


def test_a_camera_that_turns_to_another_place_shows_it():
    player = Player(max_new_view=0.04)
    reasons = [player.look(pose(400 + 12 * step, 420)).reason for step in range(24)]
    assert reasons.count("viewpoint") >= 6, reasons


def test_a_cut_passes_and_its_camera_motion_is_unknown():
    player = Player()
    player.until_closed(pose(330, 190))
    decision = player.look(pose(820, 660))
    assert decision.reason == "ego_unreliable" and decision.camera_motion is None


@pytest.mark.parametrize("gain", [0.75, 1.3])
def test_a_light_step_is_seen_once(gain):
    player = Player()
    player.until_closed()
    assert player.look(gain=gain).reason == "light"
    assert {player.look(gain=gain).reason for _ in range(10)} == {"still"}


def test_a_stopped_object_becomes_background_and_is_refreshed():
    player = Player(max_blind_ms=700.0)
    player.until_closed()
    reasons = [player.look(box=BOX).reason for _ in range(60)]
    assert reasons[0] == "motion" and reasons.index("still") <= 12
    assert reasons[20:].count("refresh") in (1, 2) and "motion" not in reasons[20:]
    assert player.look().reason == "motion", "it leaves"


def test_disabled_passes_all_and_enabling_starts_anew():
    player = Player()
    player.until_closed()
    player.set(enabled=False)
    assert {player.look().reason for _ in range(3)} == {"disabled"}
    assert player.gate.status()["gate.mode"] == "disabled"
    player.set(enabled=True)
    assert player.look().reason == "first"


def test_another_size_passes_and_starts_anew():
    player = Player()
    player.until_closed()
    half = np.ascontiguousarray(picture(AT)[:180, :320])
    assert player.show(half).reason == "size_changed"
    assert player.look().reason == "size_changed"


@pytest.mark.parametrize("width_px", [16, 80, 640, 1920])
def test_another_luma_width_while_running(width_px):
    player = Player()
    player.until_closed()
    player.set(luma_width_px=width_px)
    assert player.look().passed
    for _ in range(6):
        player.look()
    assert player.look().reason == "still"
    assert player.look(box=BOX).reason == "motion"


def test_reset_passes_for_its_reason():
    player = Player()
    player.until_closed()
    player.gate.reset("model_swap")
    assert player.look().reason == "model_swap"


@pytest.mark.parametrize(
    "changes,passes",
    [
        ({"pixel_threshold": 200}, False),
        ({"min_changed_area": 0.5}, False),
        ({"min_changed_area": 0.0}, True),
    ],
)
def test_the_thresholds_act(changes, passes):
    player = Player(**changes)
    player.until_closed()
    assert player.look(box=BOX).passed == passes


def test_a_prior_from_another_sensor_is_taken_in_source_pixels():
    player = Player()
    player.until_closed(pose(420, 420))
    prior = np.array([[1.0, 0.0, -150.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    decision = player.show(picture(pose(570, 420), 99), prior=prior)
    assert decision.camera_motion is not None
    assert decision.camera_motion[:2, 2] == pytest.approx([-150.0, 0.0], abs=0.6)


# The audit.
def test_the_audit_looks_at_its_share_of_skipped_frames():
    player = Player(audit_rate=0.2, audit_max_hz=1000.0, max_blind_ms=60000.0)
    reasons = Counter(player.look().reason for _ in range(300))
    assert 30 <= reasons["audit"] <= 90
    assert reasons["audit"] + reasons["still"] >= 290


def test_an_audited_frame_with_an_unknown_object_is_a_miss_once_the_next_result_confirms_it():
    player = Player(audit_rate=1.0, audit_max_hz=1000.0)
    player.look()
    for _ in range(5):
        player.gate.inferred(player.stamp_ns, boxes((100, 100, 200, 200)))
        player.look()
    assert player.look().reason == "audit"
    player.gate.inferred(player.stamp_ns, boxes((104, 100, 204, 200)))
    player.look()
    assert player.gate.status()["audit.missed"] == 0
    assert player.gate.status()["audit.audited"] >= 1
    player.gate.inferred(player.stamp_ns, boxes((400, 100, 500, 200)))
    player.look()
    assert player.gate.status()["audit.missed"] == 0
    player.gate.inferred(player.stamp_ns, boxes((400, 100, 500, 200)))
    player.look()
    assert player.gate.status()["audit.missed"] == 1


def test_known_objects_move_with_the_camera_for_the_audit():
    player = Player(audit_rate=1.0, audit_max_hz=1000.0, max_new_view=1.0)
    player.look(pose(450, 420))
    player.gate.inferred(player.stamp_ns, boxes((300, 100, 360, 200)))
    for step in range(1, 20):
        player.look(pose(450 + 4 * step, 420))
    assert player.gate.status()["audit.audited"] == 0
    player.gate.inferred(player.stamp_ns, boxes((300 - 76, 100, 360 - 76, 200)))
    player.look(pose(450 + 4 * 20, 420))
    status = player.gate.status()
    assert (status["audit.audited"], status["audit.missed"]) == (1, 0)


def test_too_many_misses_open_the_gate_until_there_are_few():
    player = Player(audit_rate=1.0, audit_max_hz=1000.0, max_miss_rate=0.2)
    for step in range(60):
        player.look()
        # Another object on each frame, which stays in view for one frame more.
        shown = [((at % 6) * 100, (at // 6) * 34) for at in (step, step + 1)]
        found = boxes(*((left, top, left + 30, top + 30) for left, top in shown))
        player.gate.inferred(player.stamp_ns, found)
    player.set(audit_rate=0.0)
    assert {player.look().reason for _ in range(5)} == {"audit_open"}
    status = player.gate.status()
    assert status["audit.open"] is True and status["audit.miss_rate_low"] > 0.2
    for _ in range(400):
        if not player.gate.audit_opens:
            break
        player.gate.inferred(player.stamp_ns, boxes())
        player.look()
    assert not player.gate.audit_opens and player.look().reason == "still"


def test_results_of_unknown_frames_are_no_audits():
    player = Player(audit_rate=1.0, audit_max_hz=1000.0)
    player.look()
    for stamp_ns in (5, player.stamp_ns, 10**18):
        player.gate.inferred(stamp_ns, boxes((0, 0, 10, 10)))
    player.look()
    assert player.gate.status()["audit.audited"] == 0
    assert player.gate.status()["audit.miss_rate"] is None


# Objects that the detector has just found.
def test_known_motion_passes_at_an_interval_only_if_the_user_says_so():
    def passed(interval_ms: float) -> int:
        player = Player(tracked_interval_ms=interval_ms)
        player.until_closed()
        count = 0
        for step in range(30):
            left = 200 + 3 * step
            if player.look(box=(left, 120, 60, 110)).passed:
                count += 1
                player.gate.inferred(player.stamp_ns, boxes((left, 120, left + 60, 230)))
        return count

    assert passed(0.0) == 30
    assert 10 <= passed(100.0) <= 16


def test_news_beside_known_objects_pass_at_once():
    player = Player(tracked_interval_ms=300.0)
    player.until_closed()
    for _ in range(3):
        player.look(box=BOX)
        player.gate.inferred(player.stamp_ns, boxes((240, 120, 300, 230)))
    assert player.look(box=(242, 120, 60, 110)).reason == "tracked"
    both = picture(AT, 50, box=(244, 120, 60, 110))
    both[120:230, 450:510] = picture(AT, 50, box=(450, 120, 60, 110))[120:230, 450:510]
    assert player.show(both).reason == "motion"


# The books of reasons.
SATURATED = replace(QUIET_CONFIG, saturated_open_ms=300.0, saturated_interval_ms=99.0, saturated_look=False)


def walking(player: Player, at: np.ndarray = AT):
    """A thing that moves all the time, and is nowhere again before long."""
    return player.look(at, box=(100 + 4 * (7 * player.frames % 83), 120, 60, 110))


def saturated_player(config: GateConfig = SATURATED) -> Player:
    player = Player(config)
    for _ in range(40):
        walking(player)
    assert player.gate.mode == "saturated"
    while not (walking(player).reason == "saturated_interval" and player.gate.status()["gate.back_off"]):
        assert player.frames < 1000
    return player


def test_a_saturated_gate_rests_and_looks_now_and_then():
    player = saturated_player()
    decisions = [walking(player) for _ in range(300)]
    assert {one.reason for one in decisions} == {"saturated", "saturated_interval"}
    passed = [one.passed for one in decisions]
    assert passed == [False, False, True] * 100, "the interval holds, whoever looks"
    looked = np.flatnonzero([one.analysed for one in decisions])
    assert 3 <= len(looked) <= 8 and np.diff(looked).max() <= 122, "one frame each 1 to 4 s"
    assert all(np.array_equal(one.camera_motion, np.eye(3)) for one in decisions)


def test_it_wakes_when_all_is_quiet():
    player = saturated_player()
    for _ in range(150):
        last = player.look()
    assert last.reason == "still" and player.gate.mode == "closed"
    assert not player.gate.status()["gate.back_off"]
    assert player.look(box=BOX).reason == "motion", "and sees what comes then"


def test_a_camera_that_moves_rests_too_and_its_tracks_go_by_their_own_speeds():
    player = Player(SATURATED)
    decisions = [walking(player, pose(300 + 2 * step, 420)) for step in range(200)]
    assert player.gate.mode == "saturated"
    unseen = [one for one in decisions if not one.analysed]
    assert len(unseen) > 100 and all(np.array_equal(one.camera_motion, np.eye(3)) for one in unseen)
    decisions = decisions[60:]
    judged = [one for one in decisions if one.analysed and not np.array_equal(one.camera_motion, np.eye(3))]
    assert judged, "woken, it tells the camera's motion again"
    assert all(one.camera_motion[0, 2] == pytest.approx(-2.0, abs=0.5) for one in judged)


@pytest.mark.parametrize("what", ["size", "reset", "gap", "look"])
def test_what_else_comes_up_ends_a_rest(what):
    player = saturated_player()
    if what == "size":
        decision = player.show(np.full((240, 320, 3), 90, np.uint8))
        assert decision.reason == "size_changed"
    elif what == "reset":
        player.gate.reset("model_swap")
        decision = walking(player)
        assert decision.reason == "model_swap"
    elif what == "gap":
        player.frames += 90
        decision = walking(player)
        assert decision.reason == "stream_gap"
    else:
        player.set(saturated_look=True)
        decision = walking(player)
    assert decision.analysed and not player.gate.status()["gate.back_off"]


def test_a_limit_on_the_rate_holds_during_a_rest():
    player = saturated_player()
    player.set(max_rate_hz=5.0)
    assert [walking(player).passed for _ in range(12)].count(True) == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"max_rate_hz": 0.1},
        {"saturated_interval_ms": 60000.0, "saturated_stretch": 10},
        {"saturated_interval_ms": 490.0, "saturated_stretch": 10},
    ],
    ids=["rate", "interval", "stretch"],
)
def test_no_rest_makes_the_detector_blind_for_longer_than_the_bounds(changes):
    player = saturated_player(replace(SATURATED, saturated_min_f1=0.0))
    player.set(**changes)
    passed = []
    for _ in range(120):
        decision = walking(player)
        passed.append(decision.passed)
        if decision.passed:
            player.gate.inferred(player.stamp_ns, boxes(BOX), boxes())
    gaps = np.diff(np.flatnonzero(passed))
    assert len(gaps) >= 5 and gaps.max() * PERIOD_MS <= QUIET_CONFIG.max_blind_moving_ms + PERIOD_MS


def test_a_long_interval_holds_before_a_camera_that_stands_and_is_looked_at():
    player = Player(replace(SATURATED, saturated_look=True, saturated_interval_ms=900.0))
    passed = [walking(player).passed for _ in range(150)][40:]
    gaps = np.diff(np.flatnonzero(passed))
    assert gaps.max() * PERIOD_MS >= 890.0


def test_results_set_the_pace_of_a_resting_gate():
    player = saturated_player(replace(SATURATED, saturated_min_f1=0.9, saturated_stretch=1))
    random = np.random.default_rng(1)
    nothing = boxes()

    def play(steady: bool, n: int) -> list[bool]:
        passed = []
        for _ in range(n):
            decision = walking(player)
            passed.append(decision.passed)
            if decision.passed:
                left = 100.0 if steady else float(random.uniform(0, 500))
                player.gate.inferred(player.stamp_ns, boxes((left, 100, left + 40, 200)), nothing)
        return passed

    assert sum(play(True, 60)[-24:]) == 6, "one frame more than the interval of three: it knows of no hint"
    assert sum(play(False, 120)[-20:]) == 20, "what tracks cannot foretell is looked at on every frame"
    assert player.gate.status()["adaptive_interval.frames"] == 1


def test_where_next_to_nothing_can_be_skipped_before_a_moving_camera_the_gate_rests_and_all_pass():
    player = Player(QUIET_CONFIG, min_saving=0.15)
    decisions = [walking(player, pose(300 + 2 * step, 420)) for step in range(120)]
    assert all(one.passed for one in decisions[2:])
    resting = [one for one in decisions if one.reason == "back_off"]
    assert 50 < len(resting) < 80 and sum(one.analysed for one in resting) in range(3, 8), "one of each rest"
    assert all(np.array_equal(one.camera_motion, np.eye(3)) for one in resting)
    player.set(min_saving=0.0)
    assert walking(player, pose(542, 420)).analysed
    player.set(min_saving=0.15)
    reasons = [player.look(pose(544 + 2 * step, 420)).reason for step in range(60)]
    assert reasons.count("compensated") > 20, "it sees that all is quiet again"


def test_before_a_camera_that_stands_a_look_is_cheap_and_never_spared():
    player = Player(QUIET_CONFIG, min_saving=0.4)
    assert {walking(player).reason for _ in range(60)} == {"first", "motion"}


def test_the_audit_draws_from_frames_that_are_skipped_unseen():
    player = saturated_player()
    player.set(audit_rate=1.0, audit_max_hz=1000.0)
    while walking(player).reason != "audit":
        assert player.frames < 1000
    assert {walking(player).reason for _ in range(12)} == {"audit"}


def test_every_decision_has_a_counter_and_the_counters_can_be_reset():
    player = Player()
    reasons = [player.look(box=BOX if 20 < step < 30 else None).reason for step in range(50)]
    status = player.gate.status()
    counted = {
        key.removeprefix("gate.reason."): n for key, n in status.items() if key.startswith("gate.reason.")
    }
    assert counted == Counter(reasons)
    assert set(counted) <= {*PASSES, *SKIPS} and status["gate.mode"] == "closed"
    player.gate.reset_stats()
    assert not any(key.startswith("gate.reason.") for key in player.gate.status())


# Odd images.
@pytest.mark.parametrize("encoding", ["mono8", "nv12", "yuyv", "bayer_rggb8", "mono16"])
def test_other_encodings(encoding):
    shape = {"nv12": (540, 640), "yuyv": (360, 640, 2)}.get(encoding, (360, 640))
    dtype, top = (np.uint16, 65535) if encoding == "mono16" else (np.uint8, 255)
    dark, bright = np.zeros(shape, dtype), np.zeros(shape, dtype)
    bright[80:160, 80:160] = top
    player = Player()
    for _ in range(6):
        player.show(dark, encoding)
    assert player.show(dark, encoding).reason == "still"
    decision = player.show(bright, encoding)
    assert decision.passed and decision.reason in ("motion", "ego_unreliable")
    if decision.reason == "motion":
        x1, y1, x2, y2 = decision.regions[0]
        assert x1 <= 80 and y1 <= 80 and x2 >= 160 and y2 >= 160


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 3), (20, 31), (40, 2000)])
def test_odd_sizes_do_no_harm(shape):
    rng = np.random.default_rng(0)
    player = Player()
    black, noisy = np.zeros(shape, np.uint8), rng.integers(0, 256, shape, dtype=np.uint8)
    assert player.show(black, "mono8").reason == "first"
    for _ in range(5):
        player.show(black, "mono8")
    assert player.show(black, "mono8").reason == "still"
    assert player.show(np.full(shape, 255, np.uint8), "mono8").passed
    for _ in range(5):
        player.show(noisy, "mono8")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from(["dark", "bright", "scene", "other", "noise"]), min_size=2, max_size=25))
def test_whatever_is_shown_the_bound_holds_and_no_error_comes(names):
    rng = np.random.default_rng(0)
    shown = {
        "dark": np.zeros((180, 320, 3), np.uint8),
        "bright": np.full((180, 320, 3), 255, np.uint8),
        "scene": np.ascontiguousarray(picture(AT)[:180, :320]),
        "other": np.ascontiguousarray(picture(pose(800, 600))[:180, :320]),
        "noise": rng.integers(0, 256, (180, 320, 3), dtype=np.uint8),
    }
    player = Player(max_blind_ms=200.0)
    blind = 0
    for name in names:
        decision = player.show(shown[name])
        blind = 0 if decision.passed else blind + 1
        assert blind <= 6 and decision.reason in (*PASSES, *SKIPS)
        assert decision.regions.dtype == np.float32 and decision.regions.shape[1:] == (4,)


def test_a_real_walker_passes_and_a_held_picture_does_not():
    player = Player(max_blind_ms=60000.0)
    first = video_frame("vtest.avi", 200).image
    for _ in range(6):
        player.show(first)
    assert player.show(first.copy()).reason == "still"
    assert player.show(video_frame("vtest.avi", 202).image).reason == "motion"


def test_the_settings_have_sane_defaults_and_no_frame_is_written_to():
    assert {field.name for field in fields(GateConfig)} >= {
        "max_blind_ms",
        "max_blind_moving_ms",
        "max_miss_rate",
    }
    player = Player()
    image = picture(AT)
    image.flags.writeable = False
    before = image.copy()
    for _ in range(3):
        player.show(image)
    assert not cv2.absdiff(before, image).any()
