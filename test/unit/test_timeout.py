"""Work that may never come back."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
import weakref

import pytest

from edge_vision.core.concurrency.timeout import WorkTimeout, run_with_timeout


def ignore(_):
    raise AssertionError("it was not late")


def test_a_call_that_ends_in_time_returns_its_result():
    assert run_with_timeout(30.0, lambda: 7, ignore) == 7
    assert run_with_timeout(30.0, lambda: None, ignore) is None, "nothing is a result too"
    with pytest.raises(ZeroDivisionError):
        run_with_timeout(30.0, lambda: 1 // 0, ignore)


def test_a_late_result_is_passed_to_the_callback():
    go_on, late, handed = threading.Event(), [], threading.Event()

    def work():
        go_on.wait(30)
        return "a session"

    with pytest.raises(WorkTimeout, match=r"no end after 0\.01 s"):
        run_with_timeout(0.01, work, lambda result: (late.append(result), handed.set()))
    assert not late
    go_on.set()
    assert handed.wait(30) and late == ["a session"]


def test_a_late_error_is_reported_too():
    go_on, late, handed = threading.Event(), [], threading.Event()

    def work():
        go_on.wait(30)
        raise OSError("too late")

    with pytest.raises(WorkTimeout):
        run_with_timeout(0.01, work, lambda result: (late.append(result), handed.set()))
    go_on.set()
    assert handed.wait(30) and late == [None]


def test_one_thread_does_one_errand_after_the_other_and_keeps_nothing():
    threads = [run_with_timeout(30.0, threading.current_thread, ignore) for _ in range(20)]
    assert len(set(threads)) == 1 and threads[0] is not threading.current_thread()
    thing = run_with_timeout(30.0, lambda: {1}.union(), ignore)
    left, gone = weakref.ref(thing), threading.Event()
    weakref.finalize(thing, gone.set)
    del thing
    assert gone.wait(30) and left() is None


def test_an_error_keeps_nothing_alive():
    thing = {1}.union()
    gone = weakref.ref(thing)

    def work(held=thing):
        assert held is None

    gc.disable()
    try:
        with contextlib.suppress(AssertionError):
            run_with_timeout(30.0, work, ignore)
        del thing, work
        until_s = time.monotonic() + 30
        while gone() is not None and time.monotonic() < until_s:
            time.sleep(0.01)  # The other thread lets go a moment later.
        assert gone() is None
    finally:
        gc.enable()
