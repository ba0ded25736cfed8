"""Jobs of the optimizer in real processes: done, failed, crashed, hung, no room; kept and known again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from optimize_cases import pictures, tiny_bundle, tiny_graph

from edge_vision.core.child_process import child_environment
from edge_vision.optimize.errors import DiskFull
from edge_vision.optimize.trial import LocalExecutor, Trial, TrialOutcome, keep, kept_outcome


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's folder."""
    (tmp_path / "jobs").mkdir()
    return tmp_path


def test_an_error_that_nobody_foresaw_is_a_crash_with_its_last_line(folder: Path) -> None:
    outcome = LocalExecutor().run(Trial("graph", "x", {}), folder, 60)
    assert outcome.status == "crashed" and "KeyError" in outcome.reason


def _graph_job(folder: Path, **others: Any) -> Trial:
    if not (folder / "source").exists():
        tiny_bundle(folder / "source", tiny_graph(folder / "tiny.onnx"))
        pictures(folder / "calibration", 8)
    args = {
        "source": "source",
        "out": "graphs/made",
        "precision": "fp16",
        "size": [64, 64],
        "recipe": None,
        "kept": [],
        "calibration": "calibration",
        "ranges": "ranges/r.json",
    }
    return Trial("graph", "graph-made", {**args, **others})


def test_a_real_job_is_done_and_its_answer_kept(folder: Path) -> None:
    engine, told = LocalExecutor(), _graph_job(folder)
    outcome = engine.run(told, folder, 120)
    assert outcome.status == "done", outcome
    assert outcome.result["bytes"] == (folder / "graphs/made/model.onnx").stat().st_size
    assert kept_outcome(told, folder) is None
    keep(told, outcome, folder)
    assert kept_outcome(told, folder) == outcome
    assert kept_outcome(_graph_job(folder, size=[32, 32]), folder) is None


def test_what_cannot_be_done_says_so(folder: Path) -> None:
    told = _graph_job(folder, source="calibration")
    outcome = LocalExecutor().run(told, folder, 120)
    assert outcome.status == "failed" and "bundle.yaml" in outcome.reason


def hanging_job(folder: Path) -> Trial:
    """A candidate that never answers: its worker waits for a picture that is a pipe without a writer."""
    tiny_bundle(folder / "source", tiny_graph(folder / "tiny.onnx"))
    (folder / "pictures").mkdir()
    os.mkfifo(folder / "pictures" / "000.png")
    load = {"bundle": "source", "backend": "onnxruntime", "precision": "auto", "threads": 1}
    args = {
        "candidate": load,
        "parent": None,
        "task": "classify",
        "measure_s": 0.1,
        "pictures": "pictures",
        "found": "found.npz",
        "reference": "found.npz",
        "exact": None,
    }
    return Trial("measure", "hanging", args)


def test_a_job_that_hangs_is_ended_with_its_children(folder: Path) -> None:
    told = hanging_job(folder)
    before = set(psutil.Process().children(recursive=True))
    outcome = LocalExecutor().run(told, folder, 6.0)
    assert outcome.status == "timeout" and "took longer than 6 s" in outcome.reason
    until = time.monotonic() + 60
    while set(psutil.Process().children(recursive=True)) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(psutil.Process().children(recursive=True)) - before
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])
    ]


def test_a_disk_without_room_is_told_and_nothing_is_kept_of_the_job(folder: Path) -> None:
    told = _graph_job(folder)
    (folder / "jobs" / "graph-made.log").symlink_to("/dev/null")
    (folder / "jobs" / "graph-made.job").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="no room left on the disk"):
        LocalExecutor().run(told, folder, 120)
    assert not (folder / "jobs" / "graph-made.outcome").exists()


def test_a_job_without_room_for_its_results_is_told(folder: Path) -> None:
    told = _graph_job(folder, precision="int8", recipe=_recipe())
    (folder / "graphs").mkdir()
    (folder / "graphs" / "made.fp32.onnx").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="optimize resume"):
        LocalExecutor().run(told, folder, 120)


def _recipe() -> dict[str, Any]:
    return {
        "name": "int8",
        "activations": "u8",
        "weights": "s8",
        "per_channel": True,
        "reduce_range": False,
        "why": "",
    }


def test_a_result_that_cannot_be_kept_is_told(folder: Path) -> None:
    told = _graph_job(folder)
    (folder / "jobs" / "graph-made.unfinished").symlink_to("/dev/full")
    with pytest.raises(DiskFull):
        keep(told, TrialOutcome("done", result={"text": "x" * 100_000}), folder)


def test_a_job_ends_when_the_study_is_killed(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edge_vision.optimize.trial_process",
        str(folder / "job"),
        str(folder / "answer"),
    ]
    (folder / "job").write_text(json.dumps({"kind": "measure", "name": "x", "args": {}}))
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, env=child_environment(), stderr=subprocess.DEVNULL
    )
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) != 0
    assert not (folder / "answer").exists()


def test_a_crash_is_named_by_its_signal(folder: Path) -> None:
    """A real crash: the job's process is killed from outside, as the kernel does when memory runs out."""
    told = hanging_job(folder)
    killed: list[int] = []

    def kill(_: str) -> None:
        for child in psutil.Process().children():
            if "edge_vision.optimize.trial_process" in " ".join(child.cmdline()) and not killed:
                killed.append(child.pid)
                child.send_signal(signal.SIGKILL)

    outcome = LocalExecutor(kill).run(told, folder, 120)
    assert (
        killed
        and outcome.status == "crashed"
        and outcome.reason.startswith("its process was killed by SIGKILL")
    )
