"""A short form of `make chaos`, and what the command reports."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "chaos"))

import chaos


# The short form of `kill` also stops a node.
@pytest.mark.parametrize("name", [name for name in chaos.SCENARIOS if name != "stop"])
def test_the_pipeline_survives(name, domain, tmp_path):
    result = chaos.run_scenario({"scenario": name}, tmp_path / name, short=True)
    if result["skipped"]:
        pytest.skip(result["skipped"])
    assert chaos.failed(result) == [] and len(result["checks"]) > 3


HARMFUL = """
from pathlib import Path

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from executable_cases import Executable
from ros_cases import RELIABLE

LEDGER = dict.fromkeys(("in_flight", "inferred", "gated", "rejected", "superseded", "failed"), "0")
LEDGER.update(received="1", balanced="True")

def fails(run):
    run.check("the sum", "2", "3")
    run.check("the product", "4", "4")

def breaks(run):
    raise KeyError("undocumented")

def leaves(run):
    Path(run.folder / "tmp" / "left").write_text("")

def lies(run):
    received = run.received
    status = DiagnosticStatus(values=[KeyValue(key="ledger." + k, value=v) for k, v in LEDGER.items()])
    publisher = run.robot.publisher(DiagnosticArray, "gate/status", RELIABLE)
    publisher.publish(DiagnosticArray(status=[status]))
    run.robot.wait(lambda: received.ledgers, "the report")

class Parent(Executable):
    COMMAND = ("sh", "-c", "sleep 600 & exec sleep 600")

def orphans(run):
    process = run.launch("parent", kind=Parent)
    run.robot.wait(lambda: len(process.members()) > 1, "the child")

def interrupts(run):
    run.check("the sum", "2", "2")
    raise KeyboardInterrupt
"""


@pytest.fixture
def harmful(tmp_path, monkeypatch):
    """Runs the command on a scenario that fails. Returns the exit status and the result."""
    (tmp_path / "harmful_scenarios.py").write_text(HARMFUL)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("EDGE_VISION_CACHE", os.environ["EDGE_VISION_CACHE"])  # The command sets it.

    def run(name, domain):
        monkeypatch.setattr(chaos, "SCENARIOS", {name: f"harmful_scenarios:{name}"})
        out = tmp_path / "out" / "report.json"
        status = chaos.main(["--scenarios", name, "--out", str(out)])
        return status, json.loads(out.read_text())["results"][0]

    return run


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("fails", "the sum: expected 2, got 3"),
        ("breaks", "KeyError: 'undocumented'"),
        ("leaves", "no temporary file is left behind: expected none, got left"),
        ("lies", "ledgers out of balance: expected 0 of 1, got 1 of 1; gate: {'received': 1"),
        ("orphans", "no process is left behind: expected none, got {'parent': ["),
    ],
)
def test_a_failed_check_is_reported_and_fails_the_command(harmful, domain, capsys, name, text):
    status, result = harmful(name, domain)
    assert status == 1 and len(chaos.failed(result)) == 1
    assert f"FAIL {chaos.failed(result)[0]['name']}" in capsys.readouterr().out.replace("FAIL  ", "FAIL ")
    assert text in chaos.line(result)


def test_ctrl_c_keeps_the_results(harmful, domain):
    status, result = harmful("interrupts", domain)
    assert status == 130 and result["interrupted"] and result["checks"][0]["ok"]
