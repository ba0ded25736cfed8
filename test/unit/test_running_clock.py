"""A clock that stands still while the process does."""

from __future__ import annotations

import pytest

from edge_vision.core.concurrency import lease
from edge_vision.core.running_clock import RunningClock


def test_it_runs_and_leaves_out_the_time_of_a_stopped_process() -> None:
    now_s = 100.0
    clock = RunningClock(lambda: now_s)
    begun_s = clock.now_s()
    now_s += 1.0
    assert clock.now_s() - begun_s == pytest.approx(1.0)
    now_s += 10.0
    after_s = clock.now_s()
    assert begun_s + 1.0 < after_s < begun_s + 1.1, "it goes on, and never back"
    now_s += 2.0
    assert clock.now_s() - after_s == pytest.approx(2.0)


def test_a_process_that_was_stopped_is_no_run_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 100.0
    clock = RunningClock(lambda: now_s)
    monkeypatch.setattr(lease, "running_s", clock.now_s)
    held: lease.Lease[str, str] = lease.Lease(lambda value: None)
    held.replace("model")
    assert held.acquire("frame") == "model"
    now_s += 10.0  # SIGSTOP and SIGCONT.
    assert held.revoke(1.0) is None
    now_s += 2.0  # Now it does hang.
    assert held.revoke(1.0) == ("model", "frame")
