"""The output of the optimizer runs in a node without changes: parameter file and bundle."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from model_cases import SSD, bundle_or_skip
from optimize_cases import result
from ros_cases import DetectorNode

from edge_vision.bundles.store import Bundle
from edge_vision.optimize.candidates.pareto import decide
from edge_vision.optimize.data.dataset import Dataset
from edge_vision.optimize.device import this_device
from edge_vision.optimize.output import write_output
from edge_vision.optimize.report.report_file import ModelInfo, StudyReport
from edge_vision.optimize.settings import Settings


def report_of(bundle: Bundle) -> StudyReport:
    """A study that chose its baseline, on two threads."""
    chosen = replace(result("onnxruntime-fp32-300x300-t2", 1.0), threads=2, folder="source")
    results, decision = decide([chosen], Settings(bundle.name, ("clip",)))
    return StudyReport(
        True,
        ModelInfo(bundle.name, "detect", bundle.name, "0" * 64),
        this_device(),
        Settings(bundle.name, ("clip",)),
        Dataset({}, ""),
        chosen.id,
        results,
        decision,
    )


@pytest.mark.parametrize("namespace", ["", "/front"])
def test_a_node_starts_with_the_parameter_file(start, robot, tmp_path: Path, namespace: str) -> None:
    bundle = bundle_or_skip(SSD)
    shutil.copytree(bundle.folder, tmp_path / "source")
    write_output(tmp_path, report_of(bundle))
    ros_args = ["--params-file", str(tmp_path / "params.yaml")]
    if namespace:
        ros_args += ["-r", f"__ns:={namespace}"]
    running = start([DetectorNode], ros_args=ros_args)
    node = running["detector"]
    assert node.state == "active"
    assert node.params["model"] == str(tmp_path / "bundle")
    assert node.params["threads"] == 2 and node.params["backend"] == "onnxruntime"
