"""Percentiles, rates and stamps."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_vision.core.latency import BUCKETS_MS, LatencyWindow, RateMeter
from edge_vision.core.stamp_check import StampCheck
from edge_vision.diagnostics.process_usage import ProcessMeter


def test_nothing_measured_is_none_and_not_zero():
    window = LatencyWindow()
    assert window.percentiles() is None
    window.add(3.0)
    window.reset()
    assert window.percentiles() is None


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=300), st.integers(1, 64))
def test_percentiles_are_those_of_the_last_values(values, size):
    window = LatencyWindow(size)
    for value in values:
        window.add(value)
    found = window.percentiles()
    assert found == {f"p{p}": pytest.approx(np.percentile(values[-size:], p)) for p in (50, 95, 99)}


def test_a_histogram_counts_all_values_and_not_only_the_last():
    window = LatencyWindow(2)
    assert window.histogram() == " ".join(["0"] * (len(BUCKETS_MS) + 1) + ["0.0"])
    for value in (-5.0, 1.0, 1.001, 40.0, 5000.0, 70_000.5):
        window.add(value)
    assert window.histogram() == "2 3 3 3 3 3 4 4 4 4 4 4 4 4 4 5 6 75042.501"
    window.reset()
    assert set(window.histogram().split()) == {"0", "0.0"}


def test_many_threads_add_and_read():
    window, errors = LatencyWindow(100), []

    def add() -> None:
        for _ in range(2000):
            window.add(7.0)

    def read() -> None:
        for _ in range(200):
            found = window.percentiles()
            if found and set(found.values()) != {7.0}:
                errors.append(found)

    threads = [threading.Thread(target=work) for work in (add, add, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors


def test_each_reading_of_a_rate_starts_a_new_interval():
    meter = RateMeter()
    assert meter.read_hz() == 0.0
    for _ in range(5):
        meter.count()
    assert meter.read_hz() > 0.0
    assert meter.read_hz() == 0.0


@pytest.mark.parametrize(
    "stamps,verdicts",
    [
        ([5, 6, 7], ["", "", ""]),
        ([0], ["stamp_zero"]),
        ([-5], ["stamp_zero"]),
        ([5, 0, 6], ["", "stamp_zero", ""]),
        ([5, 5, 6], ["", "stamp_repeated", ""]),
        ([5, 4, 5], ["", "stamp_backwards", ""]),
        ([9, 1, 2, 3], ["", "stamp_backwards", "", ""]),
        ([9, 1, 1], ["", "stamp_backwards", "stamp_repeated"]),
        ([5, 10**18], ["", ""]),
    ],
)
def test_stamps(stamps, verdicts):
    check = StampCheck()
    assert [check.check(stamp) for stamp in stamps] == verdicts


def test_stamps_after_a_reset():
    check = StampCheck()
    check.check(9)
    check.reset()
    assert check.check(3) == ""


@given(st.lists(st.integers(-3, 10**10), max_size=30))
def test_accepted_stamps_increase_between_clock_resets(stamps):
    check, last = StampCheck(), None
    for stamp in stamps:
        verdict = check.check(stamp)
        if verdict == "":
            assert stamp > 0 and (last is None or stamp > last)
        if verdict != "stamp_zero":
            last = stamp


def test_a_process_is_read():
    usage = ProcessMeter(os.getpid()).read()
    assert usage.rss_mb > 10 and usage.cpu_s > 0 and usage.threads >= 1


def test_open_files_are_those_of_the_process_and_not_of_the_counting():
    names = os.listdir("/proc/self/fd")
    # Listing opens one more.
    assert ProcessMeter(os.getpid()).read().fds == len(names) - 1
    command = [sys.executable, "-c", "print('up', flush=True); input()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline() == b"up\n"
        assert ProcessMeter(child.pid).read().fds == len(os.listdir(f"/proc/{child.pid}/fd"))
        child.stdin.write(b"\n")


def test_a_process_that_is_gone_is_unavailable_and_not_zero():
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    meter = ProcessMeter(process.pid)
    assert meter.read().rss_mb > 0
    process.communicate(b"\n", timeout=30)
    gone = meter.read()
    assert (gone.rss_mb, gone.cpu_percent, gone.cpu_s, gone.threads) == (None, None, None, None)
