"""Trials in real processes: done, failed, crashed, hung, disk full; stored outcomes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from optimize_cases import image_folder, tiny_bundle, tiny_graph

from edge_vision.core.child_process import child_environment
from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import DiskFull
from edge_vision.optimize.quantization.int8_recipe import Int8Recipe
from edge_vision.optimize.quantization.make_variant import VariantGraph, VariantTask
from edge_vision.optimize.trials.executor import LocalExecutor, Trial, TrialOutcome
from edge_vision.optimize.trials.measure import Measurement, MeasureTask
from edge_vision.optimize.trials.runner import store_outcome, stored_outcome
from edge_vision.optimize.trials.worker import WorkerSetup


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A study's folder."""
    (tmp_path / "trials").mkdir()
    return tmp_path


def test_an_unexpected_error_is_a_crash_with_its_last_line(folder: Path) -> None:
    outcome = LocalExecutor().run(Trial("unknown", "x", Size(1, 1), VariantGraph), folder, 60)
    assert outcome.status == "crashed" and "KeyError" in outcome.reason


def variant_trial(folder: Path, **others: Any) -> Trial[VariantGraph]:
    if not (folder / "source").exists():
        tiny_bundle(folder / "source", tiny_graph(folder / "tiny.onnx"))
        image_folder(folder / "calibration", 8)
    task = VariantTask("source", "variants/made", "fp16", Size(64, 64), None, "calibration", "ranges/r.json")
    return Trial("variant", "variant-made", replace(task, **others), VariantGraph)


def test_a_finished_trial_is_stored_with_its_result(folder: Path) -> None:
    trial = variant_trial(folder)
    outcome = LocalExecutor().run(trial, folder, 120)
    assert outcome.status == "done", outcome
    assert outcome.result is not None
    assert outcome.result.bytes == (folder / "variants/made/model.onnx").stat().st_size
    assert stored_outcome(trial, folder) is None
    store_outcome(trial, outcome, folder)
    assert stored_outcome(trial, folder) == outcome
    assert stored_outcome(variant_trial(folder, size=Size(32, 32)), folder) is None


def test_a_trial_that_raises_fails_with_the_reason(folder: Path) -> None:
    trial = variant_trial(folder, source="calibration")
    outcome = LocalExecutor().run(trial, folder, 120)
    assert outcome.status == "failed" and "bundle.yaml" in outcome.reason


def hanging_trial(folder: Path) -> Trial[Measurement]:
    """A candidate that never answers: its worker reads an image from a pipe without a writer."""
    tiny_bundle(folder / "source", tiny_graph(folder / "tiny.onnx"))
    (folder / "images").mkdir()
    os.mkfifo(folder / "images" / "000.png")
    setup = WorkerSetup("source", "onnxruntime", "auto", 1, "images")
    task = MeasureTask(setup, None, "classify", 0.1, "predictions.npz", "predictions.npz")
    return Trial("measure", "hanging", task, Measurement)


def test_a_trial_that_hangs_is_killed_with_its_children(folder: Path) -> None:
    trial = hanging_trial(folder)
    before = set(psutil.Process().children(recursive=True))
    outcome = LocalExecutor().run(trial, folder, 6.0)
    assert outcome.status == "timeout" and "exceeded the time limit of 6 s" in outcome.reason
    until = time.monotonic() + 60
    while set(psutil.Process().children(recursive=True)) - before and time.monotonic() < until:
        time.sleep(0.05)
    assert not set(psutil.Process().children(recursive=True)) - before
    assert not [
        p for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])
    ]


def test_a_full_disk_is_reported_and_no_outcome_is_stored(folder: Path) -> None:
    trial = variant_trial(folder)
    (folder / "trials" / "variant-made.log").symlink_to("/dev/null")
    (folder / "trials" / "variant-made.trial").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="no space left on the disk"):
        LocalExecutor().run(trial, folder, 120)
    assert not (folder / "trials" / "variant-made.outcome").exists()


def test_a_full_disk_within_a_trial_is_reported(folder: Path) -> None:
    trial = variant_trial(folder, precision="int8", recipe=Int8Recipe("u8", "s8", True, False, ""))
    (folder / "variants").mkdir()
    (folder / "variants" / "made.fp32.onnx").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="optimize resume"):
        LocalExecutor().run(trial, folder, 120)


def test_an_outcome_that_cannot_be_stored_is_reported(folder: Path) -> None:
    trial = variant_trial(folder)
    (folder / "trials" / "variant-made.unfinished").symlink_to("/dev/full")
    with pytest.raises(DiskFull):
        store_outcome(trial, TrialOutcome("done", "x" * 100_000), folder)


def test_a_trial_exits_when_the_study_is_killed(folder: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "edge_vision.optimize.trials.process",
        str(folder / "trial"),
        str(folder / "answer"),
    ]
    (folder / "trial").write_text(json.dumps({"kind": "measure", "task": {}}))
    child = subprocess.Popen(
        command, stdin=subprocess.PIPE, env=child_environment(), stderr=subprocess.DEVNULL
    )
    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) != 0
    assert not (folder / "answer").exists()


def test_a_crash_is_named_by_its_signal(folder: Path) -> None:
    """The trial's process is killed from outside, as by the kernel when memory runs out."""
    trial = hanging_trial(folder)
    killed: list[int] = []

    def kill(_: str) -> None:
        for child in psutil.Process().children():
            if "edge_vision.optimize.trials.process" in " ".join(child.cmdline()) and not killed:
                killed.append(child.pid)
                child.send_signal(signal.SIGKILL)

    outcome = LocalExecutor(kill).run(trial, folder, 120)
    assert (
        killed
        and outcome.status == "crashed"
        and outcome.reason.startswith("its process was killed by SIGKILL")
    )
