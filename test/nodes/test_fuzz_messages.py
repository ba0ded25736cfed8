"""A short form of `make fuzz` for what peers send: to the code that reads it, and to running nodes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "fuzz"))

from campaign import run_target


@pytest.mark.parametrize(
    "path",
    [
        "message_targets:FrameEvents",
        "message_targets:DetectionMessages",
        "message_targets:LocalizerInputs",
        "node_target:NodeParameters",
    ],
)
def test_messages_are_accepted_or_refused(tmp_path, path):
    result = run_target(path, tmp_path, seed=0, mutants=3000)
    assert result["failures"] == [] and result["failed"] == 0 and not result["skipped"]
    assert 0 < result["accepted"] < result["mutants"] == 3000, "the mutants are all alike"


def test_running_nodes_go_on(tmp_path):
    result = run_target("live_target:LivePipeline", tmp_path, seed=0, mutants=200)
    if result["skipped"]:
        pytest.skip(result["skipped"])
    assert result["failures"] == [] and result["failed"] == 0 < result["accepted"]
