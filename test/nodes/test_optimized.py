"""What the optimizer leaves runs in a node as it is: parameter file, bundle, figures."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from model_cases import SSD, bundle_or_skip
from ros_cases import DetectorNode

from edge_vision.bundles.store import Bundle
from edge_vision.optimize.report.output import write_output


def report_of(bundle: Bundle) -> dict[str, Any]:
    """A study that chose its baseline, on two threads."""
    row = {
        "id": "onnxruntime-fp32-300x300-t2",
        "backend": "onnxruntime",
        "precision": "fp32",
        "size": "300x300",
        "threads": 2,
        "graph": "source",
        **dict.fromkeys(
            ("p50_ms", "p95_ms", "p99_ms", "relative", "agreement", "rss_mb", "cold_start_s"), 1.0
        ),
    }
    return {
        "rows": [row],
        "model": {"name": bundle.name, "task": "detect"},
        "device": {"cpu": "any"},
        "decision": {"ladder": [row["id"]]},
    }


@pytest.mark.parametrize("namespace", ["", "/front"])
def test_the_parameter_file_is_taken_as_it_is(start, robot, tmp_path: Path, namespace: str) -> None:
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
