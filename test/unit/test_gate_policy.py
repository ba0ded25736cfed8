"""The gate's state machine: every state meets every event, as a table; then its bounds, as laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.gate.motion.estimator import CELLS, UNKNOWN, Motion
from edge_vision.gate.policy import PASSES, SKIPS, GateConfig, GatePolicy

MS = 1_000_000
PERIOD_MS = 33
QUIET = Motion("standing", None, False, 0.0, 0.0, 0.0, 1.0)
PANNED = replace(QUIET, camera="moving", new_view=0.01)
REVEALED = replace(QUIET, camera="moving", new_view=0.2)
MOVED = replace(QUIET, changed=True, changed_area=0.01)
FULL = replace(QUIET, changed=True, changed_area=0.8)
LIT = replace(QUIET, light_step=30.0)


class Eye:
    """Stands for the motion estimator: answers as told, and notes what it was told."""

    def __init__(self) -> None:
        self.is_settled, self.known, self.anchor_view = False, False, 1.0
        self.where = (4, 4)
        self.told: list[str] = []

    def rebase(self) -> None:
        self.told.append("rebase")

    def seen(self) -> None:
        self.told.append("seen")

    def mark(self) -> None:
        self.told.append("mark")

    def fall_back(self) -> None:
        self.told.append("fall_back")

    def settled(self) -> bool:
        return self.is_settled

    def all_known(self) -> bool:
        return self.known

    def cells(self) -> np.ndarray:
        cells = np.zeros(CELLS, bool)
        cells[self.where] = True
        return cells


class Run:
    """A policy that is shown motions every 33 ms; both clocks run alike unless told otherwise."""

    def __init__(self, **config) -> None:
        self.policy, self.eye, self.config = GatePolicy(), Eye(), GateConfig(**config)
        self.now_ms = 1000.0
        self.stamp_ms = 1000.0

    def show(self, motion: Motion, after_ms=PERIOD_MS, stamp_after_ms=None, audit_opens=False) -> str:
        self.now_ms += after_ms
        self.stamp_ms += after_ms if stamp_after_ms is None else stamp_after_ms
        stamp_ns, mono_ns = round(self.stamp_ms * MS), round(self.now_ms * MS)
        due = self.policy.since_ms(stamp_ns, mono_ns) >= self.config.saturated_interval_ms
        return self.policy.update(self.config, motion, self.eye, stamp_ns, mono_ns, audit_opens, due)

    def many(self, motion: Motion, n: int) -> list[str]:
        return [self.show(motion) for _ in range(n)]


def fresh() -> Run:
    return Run()


def opened() -> Run:
    run = Run()
    run.many(MOVED, 3)
    return run


def closing() -> Run:
    run = opened()
    assert run.show(QUIET) == "closing"
    return run


def closed() -> Run:
    run = Run()
    run.many(QUIET, 10)
    assert run.policy.mode == "closed"
    return run


def saturated() -> Run:
    run = Run()
    run.many(FULL, 40)
    assert run.policy.mode == "saturated"
    if run.show(FULL) == "saturated_interval":
        return run
    assert run.show(FULL) == "saturated_interval"
    return run


def limited() -> Run:
    run = closed()
    run.config = replace(run.config, max_rate_hz=10.0, max_blind_ms=150.0)
    while run.show(QUIET) != "refresh":
        pass
    return run


STATES = {
    "fresh": fresh,
    "open": opened,
    "closing": closing,
    "closed": closed,
    "saturated": saturated,
    "limited": limited,
}
# What happens next: the arguments of `show`.
EVENTS = {
    "quiet": (QUIET,),
    "camera moves": (PANNED,),
    "camera shows more": (REVEALED,),
    "motion": (MOVED,),
    "motion everywhere": (FULL,),
    "camera unknown": (UNKNOWN,),
    "light step": (LIT,),
    "quiet, blind too long": (QUIET, 900, 2500),
    "camera moves, blind too long": (PANNED, 600),
    "clock jumped back": (QUIET, 33, -500),
    "clock jumped forward": (QUIET, 33, 9000),
    "stamps stand still": (QUIET, 33, 0),
    "stream gap": (QUIET, 1500),
}
# Event: what each state says to it.
TABLE = {
    "quiet": ("first", "closing", "closing", "still", "closing", "rate_limit"),
    "camera moves": ("first", "closing", "closing", "compensated", "closing", "rate_limit"),
    "camera shows more": ("first", "closing", "closing", "viewpoint", "closing", "rate_limit"),
    "motion": ("first", "motion", "motion", "motion", "saturated", "rate_limit"),
    "motion everywhere": ("first", "motion", "motion", "motion", "saturated", "rate_limit"),
    "camera unknown": (
        "first",
        "ego_unreliable",
        "ego_unreliable",
        "ego_unreliable",
        "saturated",
        "rate_limit",
    ),
    "light step": ("first", "light", "light", "light", "light", "rate_limit"),
    "quiet, blind too long": ("first", "clock_jump", "clock_jump", "clock_jump", "clock_jump", "clock_jump"),
    "camera moves, blind too long": ("first", "closing", "closing", "refresh", "closing", "refresh"),
    "clock jumped back": ("first", "clock_jump", "clock_jump", "clock_jump", "clock_jump", "clock_jump"),
    "clock jumped forward": ("first", "clock_jump", "clock_jump", "clock_jump", "clock_jump", "clock_jump"),
    "stamps stand still": ("first", "closing", "closing", "still", "closing", "rate_limit"),
    "stream gap": ("first", "stream_gap", "stream_gap", "stream_gap", "stream_gap", "stream_gap"),
}
CASES = [
    (state, event, reason) for event, row in TABLE.items() for state, reason in zip(STATES, row, strict=True)
]


@pytest.mark.parametrize("state,event,reason", CASES)
def test_states_and_events(state, event, reason):
    run = STATES[state]()
    assert run.show(*EVENTS[event]) == reason


def test_the_table_is_whole_and_the_reasons_are_known():
    assert set(TABLE) == set(EVENTS)
    assert {reason for _, _, reason in CASES} <= {*PASSES, *SKIPS}
    assert not set(PASSES) & set(SKIPS)


def test_it_opens_on_one_frame_and_closes_after_quiet_frames_and_quiet_time():
    run = closed()
    assert run.show(MOVED) == "motion"
    assert run.many(QUIET, 3) == ["closing", "closing", "still"]


@pytest.mark.parametrize("frames,quiet_ms,closings", [(0, 0.0, 0), (5, 0.0, 5), (1, 330.0, 10), (2, 60.0, 2)])
def test_both_quiet_frames_and_quiet_time_must_pass(frames, quiet_ms, closings):
    run = closed()
    run.config = replace(run.config, quiet_frames=frames, quiet_ms=quiet_ms)
    run.show(MOVED)
    assert run.many(QUIET, closings + 1) == ["closing"] * closings + ["still"]


def test_motion_while_closing_starts_the_count_anew():
    run = closing()
    run.show(MOVED)
    assert run.many(QUIET, 3) == ["closing", "closing", "still"]


def test_what_settles_is_seen_once_more_and_becomes_the_scene():
    """A stopped object: nothing moves, yet the picture differs from the anchor."""
    run = opened()
    run.eye.is_settled = True
    reasons = run.many(MOVED, 10)
    assert "closing" in reasons and run.eye.told.count("rebase") >= 2
    assert run.policy.mode == "open", "the anchor of this eye never changes, so it opens again"


def test_motion_goes_on_for_long_then_an_interval_is_kept_and_news_elsewhere_pass():
    run = Run(saturated_open_ms=1000.0, saturated_interval_ms=99.0)
    reasons = run.many(MOVED, 60)
    assert reasons[0] == "first" and set(reasons[1:30]) == {"motion"}
    assert reasons[-6:].count("saturated_interval") == 2 and reasons[-6:].count("saturated") == 4
    run.eye.where = (0, 15)
    assert run.show(MOVED) == "motion"
    assert run.show(MOVED) == "saturated"


def test_who_need_not_look_must_where_something_else_comes_up():
    run = saturated()

    def must_look(after_ms=PERIOD_MS, stamp_after_ms=PERIOD_MS):
        at_ms = run.stamp_ms + stamp_after_ms, run.now_ms + after_ms
        return run.policy.must_look(run.config, *(round(ms * MS) for ms in at_ms))

    assert not must_look() and not must_look(900, 900)
    assert must_look(33, -10) and must_look(33, 2000) and must_look(2000, 2000), "a clock that jumps, a gap"
    run.policy.restart("model_swap")
    assert must_look()


def test_what_could_be_skipped_lately():
    run = Run()
    assert run.policy.saving == 0.5, "nobody knows yet"
    run.many(MOVED, 90)
    assert run.policy.saving < 0.05
    run.show(QUIET, after_ms=900)
    assert run.policy.saving < 0.1, "one frame, however long after the one before"
    run.many(QUIET, 90)
    assert run.policy.saving > 0.9
    run.policy.restart("clock_jump")
    assert run.policy.saving == 0.5


def test_frames_that_nobody_looked_at_count_for_the_clocks_and_those_that_passed_for_the_blind_time():
    run = saturated()
    for passes, since_ms in ((False, 43.0), (True, 10.0)):
        run.policy.unseen(round((run.stamp_ms + 33) * MS), round((run.now_ms + 33) * MS), passes)
        later_ms = (run.stamp_ms + 43) * MS, (run.now_ms + 43) * MS
        assert run.policy.since_ms(*map(round, later_ms)) == pytest.approx(since_ms)
    run.config = replace(run.config, max_rate_hz=10.0)
    assert run.policy.too_soon(run.config, *map(round, later_ms))


def test_a_crowd_in_view_saturates_while_something_moves():
    run = Run(saturated_objects=3, saturated_open_ms=60000.0)

    def show(objects: int, n: int, motion: Motion = MOVED) -> list[str]:
        reasons = []
        for _ in range(n):
            run.policy.in_view(run.config, objects, round(run.now_ms * MS))
            reasons.append(run.show(motion))
        return reasons

    assert show(2, 60)[1:] == ["motion"] * 59
    assert show(3, 25) == ["motion"] * 25, "not yet"
    show(2, 1)
    assert show(3, 25) == ["motion"] * 25, "anew"
    assert "saturated" in show(3, 20)
    assert show(3, 6, QUIET)[-1] == "still", "a crowd that stands still is no reason to look"
    run.config = replace(run.config, saturated_objects=0)
    show(9, 1)
    assert show(9, 60)[1:] == ["motion"] * 59


def test_saturation_by_area_takes_its_time_and_ends_with_quiet():
    run = Run(saturated_after_ms=500.0)
    assert "saturated" not in run.many(FULL, 14)
    assert "saturated" in run.many(FULL, 6)
    assert run.many(QUIET, 4)[-1] == "still"
    assert run.policy.mode == "closed"


def test_known_motion_passes_at_its_interval_only_where_the_user_wants_it():
    run = opened()
    run.eye.known = True
    assert set(run.many(MOVED, 6)) == {"motion"}
    run.config = replace(run.config, tracked_interval_ms=99.0)
    assert run.many(MOVED, 6) == ["tracked", "tracked", "tracked_interval"] * 2
    run.eye.known = False
    assert run.show(MOVED) == "motion"


def test_a_light_step_is_seen_once_and_then_rebased():
    run = closed()
    run.eye.told.clear()
    assert run.show(LIT) == "light"
    assert "rebase" in run.eye.told
    assert run.show(QUIET) == "still"


def test_a_light_step_that_the_rate_limit_held_back_is_not_lost():
    run = limited()
    run.config = replace(run.config, max_blind_ms=5000.0)
    assert run.show(LIT) == "rate_limit"
    assert [run.show(QUIET) for _ in range(3)] == ["rate_limit", "light", "rate_limit"]


def test_the_audit_keeps_it_open():
    run = closed()
    assert run.show(QUIET, audit_opens=True) == "audit_open"
    assert run.show(MOVED, audit_opens=True) == "motion"
    assert run.show(QUIET, audit_opens=False) == "closing"


def test_an_audited_frame_counts_as_seen():
    run = closed()
    run.eye.told.clear()
    run.policy.passed_anyway(run.eye, round(run.stamp_ms * MS), round(run.now_ms * MS), "audit")
    assert run.eye.told == ["seen"]
    reasons = [run.show(QUIET) for _ in range(60)]
    assert "refresh" not in reasons[:59]


def test_a_moving_camera_is_blind_for_a_shorter_time():
    def passed_after(motion: Motion) -> int:
        run = Run(max_blind_ms=1000.0, max_blind_moving_ms=300.0)
        run.many(QUIET, 4)
        return run.many(motion, 60).index("refresh")

    assert passed_after(PANNED) < 10 < 27 < passed_after(QUIET) < 32


def test_reset_makes_the_next_frame_pass_for_that_reason():
    run = closed()
    run.policy.restart("model_swap")
    assert run.show(QUIET) == "model_swap"
    assert run.show(QUIET) == "closing"


MOTIONS = st.sampled_from([QUIET, PANNED, REVEALED, MOVED, FULL, UNKNOWN, LIT])


@given(
    st.lists(st.tuples(MOTIONS, st.integers(1, 400), st.integers(-4000, 4000)), min_size=2, max_size=60),
    st.floats(1, 3000),
    st.floats(1, 3000),
    st.sampled_from([0.0, 1.0, 10.0]),
    st.sampled_from([0.0, 100.0]),
)
def test_never_blind_for_longer_than_allowed(events, static_ms, moving_ms, rate_hz, tracked_ms):
    """Whatever is seen and whatever the stamps do: by our clock, no gap grows past the bound and a period."""
    run = Run(
        max_blind_ms=static_ms,
        max_blind_moving_ms=moving_ms,
        max_rate_hz=rate_hz,
        tracked_interval_ms=tracked_ms,
    )
    run.eye.known = True
    passed_ms = None
    for motion, step_ms, stamp_step_ms in events:
        reason = run.show(motion, step_ms, stamp_step_ms)
        limit_ms = (
            static_ms if motion.camera == "standing" and motion.new_view == 0 else min(static_ms, moving_ms)
        )
        if passed_ms is None or run.now_ms - passed_ms >= limit_ms:
            assert reason not in SKIPS
        if reason not in SKIPS:
            passed_ms = run.now_ms
            assert run.eye.told[-1] == "seen"
