"""Studies on several machines, of which one is a real SSH server on 127.0.0.1."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from device_cases import DEVICE
from optimize_cases import image_folder, tiny_bundle, tiny_graph
from ssh_cases import Loopback

from edge_vision.bundles.store import load_bundle
from edge_vision.core.child_process import child_environment
from edge_vision.optimize import device_studies
from edge_vision.optimize.command import main
from edge_vision.optimize.remote.address import LOCAL
from edge_vision.optimize.remote.executor import DeviceExecutor
from edge_vision.optimize.report.report_file import read_report
from edge_vision.optimize.trials.executor import Result, Trial, TrialOutcome

pytestmark = pytest.mark.timeout(300)


def tiny_study(tmp_path: Path, *more: str) -> tuple[list[str], Path]:
    model = tiny_bundle(tmp_path / "bundle", tiny_graph(tmp_path / "tiny.onnx"))
    clips = [str(image_folder(tmp_path / name, 10, seed)) for seed, name in enumerate("ab")]
    quick = ["--measure-s", "0.2", "--images", "8", "--threads", "1", "--backends", "onnxruntime"]
    out = tmp_path / "out"
    arguments = ["run", str(model), "--calibration", clips[0], "--frames", clips[1], *quick, *more]
    return [*arguments, "--out", str(out)], out


def test_several_devices_give_one_table_and_a_bundle_each(
    device_host: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--device", LOCAL, "--device", DEVICE]
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "int8", "--sizes", "native", *both)
    assert main(arguments) in (0, 3)
    printed = capsys.readouterr().out
    values = json.loads((out / "devices.json").read_text())
    here, there = values["devices"]
    assert (here["device"], here["folder"], there["device"]) == (LOCAL, ".", DEVICE)
    assert there["cores"] == 1 and there["flags"] == here["flags"]
    rows = {row["id"]: row["devices"] for row in values["rows"]}
    assert {"onnxruntime-fp32-64x64-t1", "onnxruntime-int8-64x64-t1"} < set(rows)
    for name, cells in rows.items():
        assert set(cells) == {LOCAL, DEVICE} and printed.count(name) >= 1
        assert cells[DEVICE]["machine"].endswith(", 1 cores")
        assert cells[LOCAL]["agreement"] == cells[DEVICE]["agreement"]
    for device in (here, there):
        report = read_report(out / device["folder"])
        assert report.device.address == device["device"] and report.decision.chosen == device["chosen"]
        assert f"{device['name']}: chosen: {device['chosen']}" in printed
        assert load_bundle(str(out / device["folder"] / "bundle")).manifest.figures["optimize"]
    # The variants were made once: the second study's copies have the outcomes of the first.
    made = [
        json.loads((one / "trials/variant-int8-64x64.outcome").read_text())
        for one in (out, out / there["folder"])
    ]
    assert made[0] == made[1]
    device_host.wait_for_no_process()
    assert main(["report", str(out)]) in (0, 3)
    assert there["name"] in capsys.readouterr().out


def test_a_study_is_resumed_with_another_device(device_host: Loopback, tmp_path: Path) -> None:
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "fp16", "--sizes", "native")
    assert main(arguments) == 0
    kept = {file: file.read_bytes() for file in (out / "trials").glob("*.outcome")}
    assert kept and main(["resume", str(out), "--device", DEVICE]) == 0
    assert {file: file.read_bytes() for file in (out / "trials").glob("*.outcome")} == kept
    values = json.loads((out / "devices.json").read_text())
    assert [one["device"] for one in values["devices"]] == [LOCAL, DEVICE]
    assert all(set(row["devices"]) == {LOCAL, DEVICE} for row in values["rows"])
    stamps = {file: file.stat().st_mtime_ns for file in out.rglob("trials/*")}
    assert main(["resume", str(out)]) == 0
    assert {file: file.stat().st_mtime_ns for file in out.rglob("trials/*")} == stamps


def test_a_wrong_address_leaves_a_folder_that_can_be_used_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if not shutil.which("ssh"):
        pytest.skip("ssh is not installed")
    arguments, out = tiny_study(tmp_path, "--device", "ssh://127.0.0.1:1")
    for _ in range(2):
        assert main(arguments) == 1
        printed = capsys.readouterr()
        assert "Connection refused" in printed.err
        assert "reading the clips" not in printed.out  # which may take minutes
    assert main(["report", str(out)]) == 1 and (out / "devices.json").is_file()
    assert main(arguments) == 1
    assert "Connection refused" in capsys.readouterr().err


def test_devices_are_not_combined_with_a_cluster(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, _ = tiny_study(tmp_path, "--device", LOCAL, "--executor", "ray")
    assert main(arguments) == 2
    assert "--device: expected --executor local with it, got --executor ray" in capsys.readouterr().err


class GoesAway(DeviceExecutor):
    """Before its third measurement, all its processes are killed, and it cannot be reached again."""

    host: Loopback
    left = 2

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments, waits_s=(0.1, 0.1))

    def run(self, trial: Trial[Result], folder: Path, timeout_s: float) -> TrialOutcome[Result]:
        if trial.kind == "measure":
            self.left -= 1
            if self.left < 0:
                (self.host.folder / "known_hosts").write_text("")
                for process in (*self.host.connections(), *self.host.agents()):
                    process.kill()
        return super().run(trial, folder, timeout_s)


def test_a_device_that_goes_away_loses_nothing_and_the_other_continues(
    device_host: Loopback, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = ["--device", LOCAL, "--device", DEVICE]
    arguments, out = tiny_study(tmp_path, "--precisions", "fp32", "fp16", "int8", "--sizes", "native", *both)
    known = (device_host.folder / "known_hosts").read_text()
    GoesAway.host = device_host
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(device_studies, "DeviceExecutor", GoesAway)
        assert main(arguments) == 1
    assert "no connection in 2 attempts" in (printed := capsys.readouterr().out)
    assert f"continue with: optimize resume {out}" in printed
    values = json.loads((out / "devices.json").read_text())
    here, there = values["devices"]
    assert here["complete"] and here["chosen"] and there["error"] and not there["complete"]
    assert [DEVICE in row["devices"] for row in values["rows"]] == [True, True, False, False]
    kept = {file: file.read_bytes() for file in out.rglob("*.outcome")}
    (device_host.folder / "known_hosts").write_text(known)
    assert main(["resume", str(out)]) in (0, 3)
    assert {file: file.read_bytes() for file in kept} == kept
    values = json.loads((out / "devices.json").read_text())
    assert all(one["complete"] and not one["error"] for one in values["devices"])
    assert all(set(row["devices"]) == {LOCAL, DEVICE} for row in values["rows"])


@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGKILL])
def test_a_stopped_study_leaves_no_process_on_the_device(
    device_host: Loopback, tmp_path: Path, ends: signal.Signals
) -> None:
    arguments, _ = tiny_study(
        tmp_path, "--precisions", "fp32", "fp16", "--measure-s", "20", "--device", LOCAL, "--device", DEVICE
    )
    command = [sys.executable, "-m", "edge_vision", "optimize", *arguments]
    child = subprocess.Popen(command, env=child_environment(), stderr=subprocess.PIPE, text=True)
    until_s = time.monotonic() + 120
    while time.monotonic() < until_s and child.poll() is None:
        if device_host.runs("optimize.trials.worker"):
            break
        time.sleep(0.2)
    assert device_host.runs("optimize.trials.worker")
    child.send_signal(ends)
    said = child.communicate(timeout=60)[1]
    if ends == signal.SIGINT:
        assert "continue with: optimize resume" in said
    assert child.returncode == {signal.SIGINT: 130, signal.SIGKILL: -signal.SIGKILL}[ends]
    device_host.wait_for_no_process(10.0)
