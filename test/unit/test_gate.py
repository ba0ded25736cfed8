"""The frame gate: states x events as a table, and what must and must not pass as motion."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_cases import noise_image, video_frame

from edge_vision.core.frame import Frame
from edge_vision.core.gate import MAX_REGIONS, FrameGate, GateConfig

MS = 1_000_000
SCENE = cv2.GaussianBlur(noise_image(320, 240), (0, 0), 3) // 2 + 60


def scene(box: tuple[int, int, int, int] | None = None, gray: int = 250) -> np.ndarray:
    """The scene, with a bright or dark thing on it: left, top, width, height."""
    image = SCENE.copy()
    if box:
        left, top, width, height = box
        image[top : top + height, left : left + width] = gray
    return image


def frame(image: np.ndarray, stamp_ms: float, encoding: str = "bgr8") -> Frame:
    return Frame(image, round(stamp_ms * MS), "camera", encoding)


class Player:
    """A gate that is shown images at times; both clocks run alike unless told otherwise."""

    def __init__(self, **config) -> None:
        self.gate = FrameGate(GateConfig(**config))

    def show(self, image: np.ndarray, at_ms: float, mono_ms: float | None = None):
        mono_ns = round((at_ms if mono_ms is None else mono_ms) * MS)
        return self.gate.decide(frame(image, at_ms), mono_ns)

    def set(self, **config) -> None:
        self.gate.config = replace(self.gate.config, **config)


STILL, MOVED = scene(), scene((100, 80, 60, 60))
OTHER_SIZE = np.ascontiguousarray(SCENE[:120, :160])

# What had happened before; each leaves a gate whose last passed frame was STILL at 1000 ms.
STATES = {
    "fresh": {},
    "running": {"max_blind_ms": 500.0},
    "limited": {"max_blind_ms": 500.0, "max_rate_hz": 10.0},
    "disabled": {"enabled": False},
}
# What happens next: image, stamp in ms, monotonic time in ms.
EVENTS = {
    "still": (STILL, 1033, 1033),
    "motion soon": (MOVED, 1033, 1033),
    "motion later": (MOVED, 1133, 1133),
    "still, blind too long": (STILL, 1500, 1500),
    "still, just not too long": (STILL, 1499, 1499),
    "other size": (OTHER_SIZE, 1033, 1033),
    "clock jumped back": (STILL, 5, 1033),
    "clock jumped back, motion": (MOVED, 5, 1133),
    "clock jumped forward": (STILL, 90000, 1033),
    "stamps stand still": (STILL, 1000, 1033),
    "stamps stand still, motion": (MOVED, 1000, 1133),
    "stamps stand still too long": (STILL, 1000, 1500),
    "stamps run, our clock does not": (STILL, 1500, 1000),
}
TABLE = [
    # event, running, limited (10 Hz)
    ("still", "still", "rate_limit"),
    ("motion soon", "motion", "rate_limit"),
    ("motion later", "motion", "motion"),
    ("still, blind too long", "refresh", "refresh"),
    ("still, just not too long", "still", "still"),
    ("other size", "size_changed", "size_changed"),
    ("clock jumped back", "still", "rate_limit"),
    ("clock jumped back, motion", "motion", "motion"),
    ("clock jumped forward", "refresh", "refresh"),
    ("stamps stand still", "still", "rate_limit"),
    ("stamps stand still, motion", "motion", "motion"),
    ("stamps stand still too long", "refresh", "refresh"),
    ("stamps run, our clock does not", "refresh", "refresh"),
]
CASES = [
    (state, event, reason)
    for event, *row in TABLE
    for state, reason in zip(("running", "limited"), row, strict=True)
]
CASES += [("fresh", event, "first") for event in EVENTS] + [
    ("disabled", event, "disabled") for event in EVENTS
]
SKIPS = ("still", "rate_limit")


@pytest.mark.parametrize("state,event,reason", CASES)
def test_states_and_events(state, event, reason):
    player = Player(**STATES[state])
    if state != "fresh":
        player.show(STILL, 1000)
    decision = player.show(*EVENTS[event])
    assert (decision.passed, decision.reason) == (reason not in SKIPS, reason)
    assert decision.regions.dtype == np.float32 and decision.regions.shape[1:] == (4,)
    if reason != "motion":
        assert len(decision.regions) == 0


def test_the_table_is_whole():
    assert {event for event, *_ in TABLE} == set(EVENTS)


def test_a_skipped_frame_does_not_become_the_reference():
    player = Player()
    player.show(STILL, 0)
    assert player.show(STILL, 33).reason == "still"
    assert player.show(MOVED, 66).reason == "motion"
    assert player.show(MOVED, 100).reason == "still"
    assert player.show(STILL, 133).reason == "motion"


def test_slow_changes_add_up_until_they_pass():
    """One grey level per frame, far below the threshold of 15: a fading light must pass sooner or later."""
    player = Player(max_blind_ms=60000.0)
    player.show(STILL, 0)
    reasons = [player.show(STILL + np.uint8(step), 33.0 * step).reason for step in range(1, 33)]
    assert reasons.count("motion") == 2
    assert reasons.index("motion") == 15


def test_a_slowly_creeping_object_passes():
    player = Player(max_blind_ms=60000.0)
    player.show(scene((100, 100, 20, 20)), 0)
    reasons = [player.show(scene((100 + step, 100, 20, 20)), 33.0 * step).reason for step in range(1, 20)]
    assert "motion" in reasons


@pytest.mark.parametrize("gray", [250, 20])
@pytest.mark.parametrize("side_px", [8, 12, 24])
@pytest.mark.parametrize("at", [(0, 0), (150, 100), (319, 239)])
def test_a_small_object_that_appears_passes_and_its_region_holds_it(gray, side_px, at):
    left, top = min(at[0], 320 - side_px), min(at[1], 240 - side_px)
    player = Player()
    player.show(STILL, 0)
    decision = player.show(scene((left, top, side_px, side_px), gray), 33)
    assert decision.reason == "motion"
    x1, y1, x2, y2 = decision.regions[0]
    assert x1 <= left and y1 <= top and x2 >= left + side_px and y2 >= top + side_px
    assert x1 >= 0 and y1 >= 0 and x2 <= 320 and y2 <= 240


@pytest.mark.parametrize("sigma", [2.0, 5.0, 8.0])
def test_sensor_noise_does_not_pass(sigma):
    noise = np.random.default_rng(1)
    player = Player(max_blind_ms=60000.0)

    def noisy() -> np.ndarray:
        return np.clip(SCENE + noise.normal(0, sigma, SCENE.shape), 0, 255).astype(np.uint8)

    player.show(noisy(), 0)
    assert {player.show(noisy(), 33.0 * step).reason for step in range(1, 30)} == {"still"}


def test_many_changes_become_one_region_around_all():
    player = Player()
    player.show(np.zeros((240, 320, 3), np.uint8), 0)
    dots = np.zeros((240, 320, 3), np.uint8)
    for top in range(10, 230, 40):
        for left in range(10, 310, 40):
            dots[top : top + 6, left : left + 6] = 255
    decision = player.show(dots, 33)
    assert len(decision.regions) == 1
    x1, y1, x2, y2 = decision.regions[0]
    assert x1 <= 10 and y1 <= 10 and x2 >= 296 and y2 >= 216


def test_two_things_are_two_regions():
    player = Player()
    player.show(STILL, 0)
    both = scene((20, 20, 20, 20))
    both[180:210, 250:290] = 250
    regions = player.show(both, 33).regions
    assert 2 == len(regions) <= MAX_REGIONS


def test_the_rate_limit_keeps_a_third_of_30_hz_at_10_hz():
    player = Player(max_rate_hz=10.0, max_blind_ms=60000.0)
    flicker = [STILL, MOVED]
    passed = sum(player.show(flicker[n // 3 % 2], n * 1000 / 30).passed for n in range(300))
    assert passed == 100


def test_never_blind_for_longer_than_allowed():
    player = Player(max_blind_ms=200.0)
    passed = [at for at in range(0, 5000, 33) if player.show(STILL, at).passed]
    assert np.diff(passed).max() <= 200 + 33


@given(
    st.lists(st.tuples(st.integers(0, 4000), st.integers(1, 400), st.booleans()), min_size=2, max_size=40),
    st.floats(1, 2000),
    st.sampled_from([0.0, 1.0, 10.0]),
)
def test_never_blind_for_longer_than_allowed_whatever_the_stamps_do(events, max_blind_ms, max_rate_hz):
    """Stamps may jump anywhere; by our own clock, the wall clock, no gap grows past the bound."""
    player = Player(max_blind_ms=max_blind_ms, max_rate_hz=max_rate_hz)
    mono_ms, passed_ms = 0.0, None
    for stamp_ms, step_ms, moved in events:
        mono_ms += step_ms
        decision = player.show(MOVED if moved else STILL, stamp_ms, mono_ms)
        if passed_ms is None or mono_ms - passed_ms >= max_blind_ms:
            assert decision.passed
        if decision.passed:
            passed_ms = mono_ms


def test_reset_makes_the_next_frame_pass_for_that_reason():
    player = Player()
    player.show(STILL, 0)
    player.gate.reset("clock_jump")
    assert player.show(STILL, 33).reason == "clock_jump"
    assert player.show(STILL, 66).reason == "still"


def test_switching_it_on_again_starts_anew():
    player = Player()
    player.show(STILL, 0)
    player.set(enabled=False)
    assert player.show(STILL, 33).reason == "disabled"
    player.set(enabled=True)
    assert player.show(STILL, 66).passed
    assert player.show(STILL, 99).reason == "still"


@pytest.mark.parametrize("width_px", [16, 80, 320, 1920])
def test_another_luma_width_while_running(width_px):
    player = Player()
    player.show(STILL, 0)
    player.set(luma_width_px=width_px)
    assert player.show(STILL, 33).passed
    assert player.show(STILL, 66).reason == "still"
    assert player.show(MOVED, 99).reason == "motion"


@pytest.mark.parametrize("threshold,passes", [(1, True), (29, True), (60, False), (254, False)])
def test_the_pixel_threshold_acts(threshold, passes):
    player = Player(pixel_threshold=threshold)
    flat = np.full((120, 160, 3), 100, np.uint8)
    player.show(flat, 0)
    assert player.show(flat + np.uint8(30), 33).passed == passes


@pytest.mark.parametrize("area,passes", [(0.0, True), (0.2, True), (0.3, False), (1.0, False)])
def test_the_least_area_acts(area, passes):
    player = Player(min_changed_area=area)
    flat = np.full((120, 160, 3), 100, np.uint8)
    player.show(flat, 0)
    quarter = flat.copy()
    quarter[:60, :80] = 200
    assert player.show(quarter, 33).passed == passes


def test_no_least_area_still_needs_a_change():
    player = Player(min_changed_area=0.0)
    player.show(STILL, 0)
    assert player.show(STILL, 33).reason == "still"


@pytest.mark.parametrize("encoding", ["mono8", "nv12", "yuyv", "bayer_rggb8", "mono16"])
def test_other_encodings(encoding):
    shape = {"nv12": (360, 320), "yuyv": (240, 320, 2)}.get(encoding, (240, 320))
    dtype, top = (np.uint16, 65535) if encoding == "mono16" else (np.uint8, 255)
    dark, bright = np.zeros(shape, dtype), np.zeros(shape, dtype)
    bright[40:80, 40:80] = top
    gate = FrameGate()
    assert gate.decide(frame(dark, 0, encoding), 0).reason == "first"
    assert gate.decide(frame(dark, 33, encoding), 33 * MS).reason == "still"
    decision = gate.decide(frame(bright, 66, encoding), 66 * MS)
    assert decision.reason == "motion"
    x1, y1, x2, y2 = decision.regions[0]
    assert x1 <= 40 <= 80 <= x2 and y1 <= 40 <= 80 <= y2


def test_one_pixel():
    gate = FrameGate()
    black, white = np.zeros((1, 1), np.uint8), np.full((1, 1), 255, np.uint8)
    assert gate.decide(frame(black, 0, "mono8"), 0).reason == "first"
    assert gate.decide(frame(black, 33, "mono8"), 33 * MS).reason == "still"
    assert gate.decide(frame(white, 66, "mono8"), 66 * MS).reason == "motion"


def test_a_real_walker_passes_and_a_held_frame_does_not():
    player = Player(max_blind_ms=60000.0)
    first = video_frame("vtest.avi", 200).image
    player.show(first, 0)
    assert player.show(first.copy(), 33).reason == "still"
    assert player.show(video_frame("vtest.avi", 202).image, 66).reason == "motion"
