"""The whole gate on real pictures: what must and must not pass, the audit, the counters, odd input."""

from __future__ import annotations

import time
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

from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.gate.frame_gate import PASSES, SKIPS, FrameGate, GateConfig
from edge_vision.tracking.tracking_history import TrackingHistory

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

    def until_still(self, at: np.ndarray = AT) -> None:
        for _ in range(6):
            self.look(at)
        assert self.look(at).reason == "still"

    def set(self, **changes) -> None:
        self.gate.config = replace(self.gate.config, **changes)


def test_a_new_object_in_a_still_scene_passes_at_once_with_its_region():
    player = Player()
    player.until_still()
    decision = player.look(box=BOX)
    assert decision.reason == "interval"
    left, top, right, bottom = decision.regions[0]
    assert left <= 246 and top <= 126 and right >= 294 and bottom >= 224
    assert right - left < 110 and bottom - top < 160
    assert player.look(box=BOX).reason == "still"


def test_a_panning_camera_is_inferred_at_the_promised_interval_and_its_motion_is_measured():
    player = Player(min_fidelity=0.0)
    decisions = [player.look(pose(450 + 2.5 * step, 420)) for step in range(25)]
    assert [step for step, one in enumerate(decisions) if one.passed] == [0, 4, 8, 12, 16, 20, 24]
    assert {one.reason for one in decisions} == {"first", "predicted", "interval"}
    for decision in decisions[1:]:
        assert decision.camera_motion is not None
        assert decision.camera_motion[:2, 2] == pytest.approx([-2.5, 0.0], abs=0.8)


def test_a_cut_passes_at_once_and_its_camera_motion_is_unknown():
    player = Player()
    for _ in range(5):
        player.look(pose(330, 190))
    decision = player.look(pose(820, 660))
    assert decision.reason == "cut" and decision.camera_motion is None
    assert [player.look(pose(820, 660)).reason for _ in range(5)] == ["still"] * 5


@pytest.mark.parametrize("gain", [0.75, 1.3])
def test_a_light_step_is_inferred_once(gain):
    player = Player()
    player.until_still()
    assert player.look(gain=gain).passed
    assert {player.look(gain=gain).reason for _ in range(10)} == {"still"}


def test_a_still_scene_is_refreshed_and_what_leaves_it_passes():
    player = Player(max_blind_ms=700.0)
    player.until_still()
    reasons = [player.look(box=BOX).reason for _ in range(60)]
    assert reasons[0] == "interval" and set(reasons[1:]) == {"still", "refresh"}
    assert reasons.count("refresh") == 2
    assert player.look().reason == "interval"


def test_disabled_passes_all_and_enabling_starts_again():
    player = Player()
    player.until_still()
    player.set(enabled=False)
    assert {player.look().reason for _ in range(3)} == {"disabled"}
    player.set(enabled=True)
    assert player.look().reason == "first"


def test_another_size_passes_and_starts_again():
    player = Player()
    player.until_still()
    half = np.ascontiguousarray(picture(AT)[:180, :320])
    assert player.show(half).reason == "size_changed"
    assert player.look().reason == "size_changed"


@pytest.mark.parametrize("width_px", [16, 80, 640, 1920])
def test_another_luma_width_while_running(width_px):
    player = Player()
    player.until_still()
    player.set(luma_width_px=width_px)
    assert player.look().passed
    for _ in range(6):
        player.look()
    assert player.look().reason == "still"
    assert player.look(box=BOX).reason == "interval"


def test_reset_passes_for_its_reason():
    player = Player()
    player.until_still()
    player.gate.reset("model_swap")
    assert player.look().reason == "model_swap"


def test_a_prior_from_another_sensor_is_taken_in_source_pixels():
    """A rotation about the image centre, which phase correlation cannot measure."""
    player = Player()
    player.until_still(pose(500, 420))
    turned = pose(500, 420, turn=0.1)
    prior = turned @ np.linalg.inv(pose(500, 420))
    assert player.show(picture(turned, 99), prior=prior).camera_motion == pytest.approx(prior, abs=1e-9)
    assert player.show(picture(turned, 100), prior=prior).camera_motion == pytest.approx(np.eye(3), abs=1e-9)


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


def test_too_many_misses_open_the_gate_until_there_are_few():
    player = Player(audit_rate=1.0, audit_max_hz=1000.0, max_miss_rate=0.2)
    for step in range(60):
        player.look()
        # Another object on each frame, which stays in view for one frame more.
        shown = [((at % 6) * 100, (at // 6) * 34) for at in (step, step + 1)]
        found = boxes(*((left, top, left + 30, top + 30) for left, top in shown))
        player.gate.inferred(player.stamp_ns, found)
    player.set(audit_rate=0.0)
    reasons = [player.look().reason for _ in range(12)]
    assert set(reasons) <= {"audit_open", "predicted"} and reasons.count("audit_open") >= 3
    status = player.gate.status()
    assert status["audit.open"] is True and status["audit.miss_rate_low"] > 0.2
    image = picture(AT)
    for _ in range(2000):
        if not player.gate.audit_opens:
            break
        player.gate.inferred(player.stamp_ns, boxes())
        player.show(image)
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
def test_every_decision_has_a_counter_and_the_counters_can_be_reset():
    player = Player()
    reasons = [player.look(box=BOX if 20 < step < 30 else None).reason for step in range(50)]
    status = player.gate.status()
    counted = {
        key.removeprefix("gate.reason."): n for key, n in status.items() if key.startswith("gate.reason.")
    }
    assert counted == Counter(reasons)
    assert set(counted) <= {*PASSES, *SKIPS}
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
    assert decision.passed and decision.reason in ("interval", "cut")
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
    assert player.show(video_frame("vtest.avi", 202).image).reason == "interval"


def test_the_settings_have_sane_defaults_and_no_frame_is_written_to():
    assert {field.name for field in fields(GateConfig)} >= {
        "max_delay_ms",
        "min_fidelity",
        "max_blind_ms",
    }
    player = Player()
    image = picture(AT)
    image.flags.writeable = False
    before = image.copy()
    for _ in range(3):
        player.show(image)
    assert not cv2.absdiff(before, image).any()


# Change that the tracks explain.
def walker_scene(step: int, newcomer: bool = False) -> np.ndarray:
    """(180, 320) uint8: a textured block that walks by 2 px a frame over a still picture; another one."""
    image = np.kron(np.random.default_rng(3).integers(60, 120, (18, 32)), np.ones((10, 10))).astype(np.uint8)
    image[60:120, 40 + 2 * step : 70 + 2 * step] = np.arange(60)[:, None] * 4
    if newcomer:
        image[20:60, 250:275] = 255
    return image


def walked(appears: int = 1000, known: bool = True, **changes) -> list[str]:
    """The reasons while a block walks whose track is known or not; another one appears on a frame."""
    gate, reasons = FrameGate(replace(QUIET_CONFIG, min_fidelity=0.0, **changes), seed=0), []
    for step in range(60):
        stamp_ns = 10**9 + round(step * PERIOD_MS * MS)
        decision = gate.decide(
            Frame(walker_scene(step, step >= appears), stamp_ns, "camera", "mono8"), stamp_ns
        )
        if decision.passed:
            left = 40 + 2 * step
            gate.inferred(stamp_ns, boxes((left, 60, left + 30, 120)) if known else boxes(), boxes())
        reasons.append(decision.reason)
    return reasons


def test_change_within_the_tracks_may_wait_for_twice_the_delay():
    assert longest_gap(walked()) == 6
    assert "explained" in walked()
    unknown = walked(known=False)
    assert longest_gap(unknown) == 3 and "explained" not in unknown


@pytest.mark.parametrize("appears", range(30, 37))
def test_change_beside_the_tracks_is_inferred_within_the_delay(appears):
    waited = [reason in PASSES for reason in walked(appears)[appears:]].index(True)
    assert waited <= 3


def test_frames_that_the_tracks_explain_are_audited():
    reasons = walked(audit_rate=1.0, audit_max_hz=1000.0)
    assert "audit" in reasons and "explained" not in reasons


# Odd cameras and detectors.
def scene(step: int, seed: int = 5) -> np.ndarray:
    """(90, 160) uint8: a picture that moves by 2 px a frame."""
    noise = np.random.default_rng(seed).integers(0, 256, (90, 160), np.uint8)
    smooth = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 3), None, 20, 230, cv2.NORM_MINMAX)
    return np.roll(smooth, 2 * step, axis=1)


def run(images, found=None, period_ms=PERIOD_MS, **changes) -> list[str]:
    """The reasons of frames whose results come at once."""
    gate, reasons = FrameGate(replace(QUIET_CONFIG, **changes), seed=0), []
    for number, image in enumerate(images):
        stamp_ns = 10**9 + round(number * period_ms * MS)
        decision = gate.decide(Frame(image, stamp_ns, "camera", "mono8"), stamp_ns)
        if decision.passed:
            gate.inferred(stamp_ns, boxes() if found is None else found(number), boxes())
        reasons.append(decision.reason)
    return reasons


def longest_gap(reasons: list[str]) -> int:
    """The most frames in a row that were skipped."""
    return max(len(part) for part in "".join("x" if one in PASSES else "." for one in reasons).split("x"))


@pytest.mark.parametrize("rate_hz,skipped", [(1, 0), (5, 0), (10, 1), (25, 2), (30, 3), (60, 6), (240, 24)])
def test_the_promised_interval_at_any_rate(rate_hz, skipped):
    reasons = run([scene(step) for step in range(120)], period_ms=1000 / rate_hz, min_fidelity=0.0)
    assert longest_gap(reasons) <= skipped
    if rate_hz >= 10:
        assert longest_gap(reasons) == skipped


@pytest.mark.parametrize("rate_hz,n", [(10, 2), (20, 3), (25, 3), (30, 4), (60, 7)])
@pytest.mark.parametrize("jitter_ms", [0.05, 0.5, 2.0])
def test_jittery_stamps_leave_the_promised_interval_as_it_is(rate_hz, n, jitter_ms):
    rng, gate, passed = np.random.default_rng(1), FrameGate(replace(QUIET_CONFIG, min_fidelity=0.0)), 0
    for step in range(300):
        stamp_ns = 10**9 + round((step * 1000 / rate_hz + rng.uniform(-jitter_ms, jitter_ms)) * MS)
        passed += gate.decide(Frame(scene(step), stamp_ns, "camera", "mono8"), stamp_ns).passed
    assert 300 / n <= passed <= 1.06 * 300 / n + 1


@pytest.mark.parametrize("max_delay_ms", [1.0, 100.0])
def test_stamps_in_a_wrong_unit_hold_the_reaction_by_the_clock(max_delay_ms):
    gate, passed = FrameGate(replace(QUIET_CONFIG, min_fidelity=0.0, max_delay_ms=max_delay_ms)), []
    for step in range(60):
        stamp_ns, mono_ns = 10**9 + step * 33_333, 10**9 + step * 33_333_333
        if gate.decide(Frame(scene(step), stamp_ns, "camera", "mono8"), mono_ns).passed:
            passed.append(step)
    assert np.diff([*passed, 60]).max() <= (1 if max_delay_ms == 1.0 else 7)


def test_a_slow_camera_that_is_sent_again_at_a_higher_rate():
    reasons = run([scene(step // 3) for step in range(120)], min_fidelity=0.0)
    assert longest_gap(reasons) <= 3 and reasons.count("interval") <= 31


def test_a_hundred_cuts_in_a_hundred_frames_pass_all():
    cuts = [scene(0, seed) for seed in range(100)]
    assert longest_gap(run(cuts)) <= 3
    blinking = [np.full((90, 160), 230 * (step % 2), np.uint8) for step in range(100)]
    assert longest_gap(run(blinking)) <= 4, "a frame like the last inferred one is not due"


def test_noise_without_a_picture_keeps_the_bounds():
    rng = np.random.default_rng(3)
    noisy = [rng.integers(0, 256, (90, 160), dtype=np.uint8) for _ in range(100)]
    assert longest_gap(run(noisy)) <= 3


@pytest.mark.parametrize("min_fidelity", [0.0, 0.95, 0.97])
def test_a_detector_that_never_finds_anything_is_run_at_the_promised_interval(min_fidelity):
    reasons = run([scene(step) for step in range(120)], min_fidelity=min_fidelity)
    assert 28 <= reasons.count("interval") <= 31 and "urgent" not in reasons


def test_a_hundred_boxes_in_every_frame():
    def crowd(number: int):
        rng = np.random.default_rng(number)
        corners = rng.uniform(0, 120, (100, 2))
        return boxes(*[(x, y, x + 20, y + 15) for x, y in corners.tolist()])

    reasons = run([scene(step) for step in range(60)], found=crowd)
    assert longest_gap(reasons) <= 3 and reasons.count("urgent") > 30, "nothing that is published holds"


def test_ten_thousand_boxes_do_not_block_the_gate():
    corners = np.random.default_rng(0).uniform(0, 120, (10_000, 2))
    crowd = boxes(*np.concatenate([corners, corners + 20], axis=1).tolist())
    player = Player(audit_rate=1.0, audit_max_hz=1000.0)
    for _ in range(3):
        player.look()
        player.gate.inferred(player.stamp_ns, crowd, crowd)
    started_s = time.monotonic()
    player.look()
    assert time.monotonic() - started_s < 5.0


def test_detections_that_are_not_finite_leave_no_trace_in_the_schedule():
    player = Player()
    player.look()
    bad = Detections.joined([boxes((20, 20, 60, 60), score=np.nan), boxes((20, 20, np.nan, 60))])
    player.gate.inferred(player.stamp_ns, bad, bad)
    player.look()
    figures = {key: value for key, value in player.gate.status().items() if key.startswith("schedule.")}
    assert np.isfinite(list(figures.values())).all(), figures


def test_an_audit_rate_whose_inverse_is_infinite_is_none():
    player = Player(audit_rate=5e-324)
    player.until_still()


def test_shared_tracks_are_read_and_extended_but_the_tracker_adds_the_detections_and_resets():
    player, shared = Player(), TrackingHistory()
    player.gate.shared_tracks = shared
    for _ in range(3):
        player.look()
        player.gate.inferred(player.stamp_ns, boxes((50, 50, 90, 120)))
    assert len(shared) == 3 and len(shared.tracks_at(player.stamp_ns)) == 0, "not tracked twice"
    assert shared.add_detections(player.stamp_ns, boxes((50, 50, 90, 120)), (640, 480)).tolist() == [1]
    player.gate.reset("model_swap")
    assert len(shared.tracks_at(player.stamp_ns)) == 1
    player.look()
    last_ns = player.stamp_ns
    player.gate.shared_tracks = None
    player.look()
    assert shared.tracks_at(last_ns) is not None
    assert shared.tracks_at(player.stamp_ns) is None, "its own from now on"
