"""The figures of real processes against measurements from outside; and a node that is restarted.

`make bench-diagnostics` measures how well they agree; here only what noise cannot undo is asserted.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from model_cases import DETECTOR, bundle_or_skip, clip_or_skip
from ros_cases import DiagnosticArray

from edge_vision.nodes.interface.status_messages import status_values

BENCH = str(Path(__file__).resolve().parents[2] / "bench")


@pytest.fixture
def healthy(monkeypatch, domain):
    """bench/parts/diagnostics/healthy.py, which measures in the domain of the test."""
    monkeypatch.syspath_prepend(BENCH)
    from parts.diagnostics import healthy

    yield healthy
    for name in [name for name in sys.modules if name.partition(".")[0] == "parts"]:
        del sys.modules[name]


@pytest.fixture
def video():
    path = clip_or_skip("vtest.avi")
    bundle_or_skip(DETECTOR)
    return path


def test_a_healthy_run_agrees_with_proc_and_with_a_subscriber(healthy, video):
    # On a loaded machine an inference may take long, which would be reported.
    calm = ("detector:watchdog_ms:=0.0", "diagnostics:max_age_ms:=600000.0")
    found = healthy.watch(video, 0.2, ["--ros-args", *(word for one in calm for word in ("-p", one))])
    assert found["false_alarms_messages"] == [] and found["reports"] >= 8
    agreement, figures = found["agreement"], found["agreement_figures"]
    assert abs(agreement["rss"]) < 0.05, figures
    assert abs(agreement["fds"]) < 0.05, figures
    # The reports and the measurement do not begin and end at the same moment.
    assert abs(agreement["cpu"]) < 0.3, figures
    assert abs(agreement["rate"]) < 0.3, figures


def test_a_known_delay_is_in_the_age_at_output(healthy, video):
    pictures = healthy.read_images(video)
    # No result is younger than its stamp, and load does not cause a median of a minute.
    assert 5000.0 <= healthy.age_ms(pictures, 5000.0, count=15) < 60_000.0
    assert 0.0 < healthy.age_ms(pictures, 0.0, count=15) < 5000.0


def test_a_node_that_is_restarted(launch, robot):
    """Stale while absent; then with a new ledger and process, and without a warning."""
    params = ("--ros-args", "-p", "watched_nodes:=[gate]", "-p", "stale_ms:=1500.0")
    launch("diagnostics_node", *params)
    gate = launch("gate_node")
    messages = robot.listen(DiagnosticArray, "/diagnostics")

    def report(predicate):
        def matching():
            while messages:
                found = {one.name: (one, status_values(one)) for one in messages.pop(0).status}
                if "system" in found and predicate(found):
                    return found
            return None

        return robot.wait(matching, "a matching report")

    def runs_in(pid):
        return lambda found: found.get("gate", (0, {}))[1].get("pid") == str(pid)

    def processes(found):
        return [name for name in found if name.startswith("process ")]

    first = report(runs_in(gate.process.pid))
    assert processes(first) == [f"process {gate.process.pid}"]
    gate.kill()
    away = report(
        lambda found: found["gate"][0].level == b"\x03" and found["output"][1]["cause"] == "node_silent"
    )
    assert "is the node running" in away["gate"][0].message and "has ended" in away["output"][0].message
    assert away[f"process {gate.process.pid}"][0].message == "not on this machine, or ended"
    assert away[f"process {gate.process.pid}"][1]["rss_mb"].startswith("unavailable: not on this machine")
    again = launch("gate_node")
    back = report(runs_in(again.process.pid))
    assert processes(back) == [f"process {again.process.pid}"]
    assert back["gate"][1]["ledger.received"] == "0" and back["gate"][0].level != b"\x03"
