"""The interval between looks: what tracks foretell, and what low-score detections say."""

from __future__ import annotations

import numpy as np
import pytest
from box_cases import boxes
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.detections import Detections
from edge_vision.gate.adaptive_interval import AdaptiveInterval

PERIOD_NS = 100_000_000
SIZE_PX = (640, 480)
NOBODY = Detections.empty()
WALKER = (100.0, 100.0, 140.0, 200.0)
OTHER = (400.0, 100.0, 440.0, 200.0)


class Play:
    """A camera at 10 Hz. found, low_score: what the detector would find and nearly find on each frame."""

    def __init__(self, interval_ms=105.0, min_f1=0.0, stretch=0) -> None:
        self.pace = AdaptiveInterval()
        self.pace.restart(SIZE_PX)
        self.settings = (interval_ms, min_f1, stretch)
        self.at, self.passed_at = 0, 0
        self.passed: list[bool] = []

    def show(self, found: Detections, low_score: Detections | None = NOBODY) -> bool:
        self.at += 1
        interval_ms, min_f1, stretch = self.settings
        due = self.pace.due((self.at - self.passed_at) * 100.0, interval_ms, min_f1, stretch)
        if due:
            self.passed_at = self.at
            self.pace.passed(self.at * PERIOD_NS)
            self.pace.found(self.at * PERIOD_NS, found, low_score, min_f1)
        self.passed.append(due)
        return due

    @property
    def gaps(self) -> list[int]:
        """The intervals, in frames."""
        return np.diff(np.flatnonzero(self.passed)).tolist()


def walk(at: int, start: tuple[float, ...] = WALKER, step_px: float = 4.0) -> tuple[float, ...]:
    left, top, right, bottom = start
    return (left + step_px * at, top, right + step_px * at, bottom)


def test_without_wishes_it_is_the_interval():
    play = Play()
    for _ in range(20):
        play.show(NOBODY)
    assert set(play.gaps) == {2}, "105 ms at 10 Hz"
    assert Play(interval_ms=95.0).show(NOBODY)


def test_where_nothing_is_hinted_it_is_one_frame_more():
    play = Play(stretch=1)
    for at in range(30):
        play.show(boxes(walk(at)))
    assert set(play.gaps[1:]) == {3}
    play = Play(stretch=3)
    for at in range(30):
        play.show(boxes(walk(at)))
    assert set(play.gaps[1:]) == {5}


@pytest.mark.parametrize(
    ("low_score", "gap"),
    [
        (boxes(OTHER, score=0.3), 2),
        (None, 2),
        (NOBODY, 3),
        (boxes(OTHER, class_id=7, score=0.3), 3),
        (boxes(walk(3), score=0.3), 3),
    ],
    ids=[
        "somebody nearly seen",
        "nobody tells low_score",
        "none",
        "of a class never told of",
        "on one who is known",
    ],
)
def test_what_is_a_hint(low_score: Detections | None, gap: int):
    play = Play(stretch=1)
    for _ in range(20):
        play.show(boxes(walk(3)), low_score)
    assert set(play.gaps[1:]) == {gap}


def test_a_class_that_was_told_of_once_hints_from_then_on():
    play = Play(stretch=1)
    kite = boxes(OTHER, class_id=7, score=0.3)
    for at in range(30):
        play.show(boxes(OTHER, class_id=7) if at < 10 else boxes(WALKER), kite if at >= 10 else NOBODY)
    assert play.gaps[-1] == 2


def test_a_result_that_has_not_come_hints_at_anything():
    pace = AdaptiveInterval()
    pace.restart(SIZE_PX)
    pace.passed(PERIOD_NS)
    pace.found(PERIOD_NS, boxes(WALKER), NOBODY, 0.0)
    assert not pace.due(110.0, 105.0, 0.0, 1) and pace.due(210.0, 105.0, 0.0, 1)
    pace.passed(3 * PERIOD_NS)
    assert pace.due(110.0, 105.0, 0.0, 1)
    pace.found(2 * PERIOD_NS, NOBODY, NOBODY, 0.0)
    pace.found(9 * PERIOD_NS, NOBODY, NOBODY, 0.0)
    assert pace.due(110.0, 105.0, 0.0, 1), "neither is of a frame that passed"


def test_tracks_that_foretell_make_the_interval_longer_up_to_the_users():
    play = Play(interval_ms=405.0, min_f1=0.9)
    for at in range(80):
        play.show(boxes(walk(at)))
    assert play.gaps[0] == 1, "it begins with every frame"
    assert play.gaps[-4:] == [5] * 4
    assert play.pace.frame_f1 is not None and play.pace.frame_f1 > 0.99


def test_what_nobody_can_foretell_is_looked_at_on_every_frame():
    play = Play(interval_ms=405.0, min_f1=0.9)
    random = np.random.default_rng(1)
    for _ in range(80):
        left, top = random.uniform(0, 500, 2)
        play.show(boxes((left, top, left + 40, top + 60)))
    assert set(play.gaps) == {1}
    assert play.pace.agreement is not None and play.pace.agreement < 0.3
    assert play.pace.frame_f1 == pytest.approx(1.0), "as all frames are looked at"


def test_a_scene_that_becomes_restless_shortens_the_interval_again():
    play = Play(interval_ms=405.0, min_f1=0.9)
    random = np.random.default_rng(2)
    for at in range(80):
        play.show(boxes(walk(at)))
    for _ in range(60):
        left, top = random.uniform(0, 500, 2)
        play.show(boxes((left, top, left + 40, top + 60)))
    assert play.gaps[-5:] == [1] * 5


def test_where_nobody_is_in_view_the_users_interval_holds():
    play = Play(interval_ms=405.0, min_f1=0.9)
    for _ in range(80):
        play.show(NOBODY)
    assert play.gaps[-2:] == [5, 5]
    assert play.pace.status() == {
        "adaptive_interval.frames": 6,
        "adaptive_interval.agreement": None,
        "adaptive_interval.frame_f1": None,
    }


def test_what_is_estimated_is_what_is_published():
    """A walker who is seen on two of three frames: the tracks cannot know."""
    play = Play(interval_ms=105.0)
    random = np.random.default_rng(3)
    right = total = 0
    for at in range(600):
        found = boxes(walk(at % 100)) if random.random() < 0.67 else NOBODY
        shown = play.pace._tracker.predict((at + 1) * PERIOD_NS, np.eye(3)).detections()
        if play.show(found):
            shown = found
        total += len(shown) + len(found)
        right += 2 * min(len(shown), len(found))
    assert play.pace.frame_f1 == pytest.approx(right / total, abs=0.12)


@given(
    found=st.lists(st.booleans(), min_size=1, max_size=40),
    low_score=st.lists(st.sampled_from([None, NOBODY, boxes(OTHER, score=0.3)]), min_size=1, max_size=5),
    min_f1=st.sampled_from([0.0, 0.5, 0.9, 1.0]),
    stretch=st.integers(0, 3),
)
def test_no_gap_is_longer_than_the_interval_and_the_stretch(found, low_score, min_f1, stretch):
    play = Play(interval_ms=205.0, min_f1=min_f1, stretch=stretch)
    for at, there in enumerate(found):
        play.show(boxes(walk(at)) if there else NOBODY, low_score[at % len(low_score)])
    assert max(play.gaps, default=0) <= 3 + stretch
