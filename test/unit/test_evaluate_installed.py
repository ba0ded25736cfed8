"""The evaluation as installed: without the constructed sequences, which stay in the source repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from model_cases import DETECTOR, bundle_or_skip, clip_or_skip

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a wheel."""
    folder = tmp_path_factory.mktemp("installed")
    command = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(folder)]
    subprocess.run(command, cwd=REPO, check=True, capture_output=True)
    return folder


def run(installed: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "edge_vision", "evaluate", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True)


def test_the_wheel_contains_neither_the_sequences_nor_the_benchmarks(installed: Path) -> None:
    assert (installed / "edge_vision" / "evaluate" / "reference" / "data" / "removed_events.json").is_file()
    assert not (installed / "edge_vision" / "evaluate" / "sequences").exists()
    assert not (installed / "bench").exists()


def test_a_real_clip_is_evaluated_without_the_sequences(installed: Path, tmp_path: Path) -> None:
    bundle_or_skip(DETECTOR)
    clip = clip_or_skip("bikes.mp4")
    arguments = ["gate", "--video", clip, "--quick", "--jobs", "1", "--out", str(tmp_path / "out")]
    done = run(installed, *arguments)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    condition = report["conditions"]["bikes"]
    assert 0.5 < condition["noise_ceiling"] < 1.0
    gate = condition["methods"]["gate"]
    assert gate["fidelity"] == pytest.approx(gate["frame_f1"] / condition["noise_ceiling"])


@pytest.mark.parametrize("arguments", [["gate", "--conditions", "static"], ["gate", "--split", "tune"]])
def test_a_constructed_sequence_is_refused_with_a_reason(
    installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))  # Without clips, which would be opened first.
    done = run(installed, *arguments)
    assert done.returncode == 2
    assert "constructed sequences are part of the source repository" in done.stderr
