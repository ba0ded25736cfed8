"""The alerts in a real Prometheus that scrapes the metrics of two real pipelines."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from metrics_cases import free_port
from model_cases import clip_or_skip, video_frame
from ros_cases import wait_until
from sysfs_cases import plant, write

REPO = Path(__file__).parents[2]
DOCUMENTED = {"RobotSilent", "MissRateHigh", "ThermalThrottle", "BackendFallback"}
# As `python -m edge_vision.nodes.cli`, with the machine's sensors replaced by files.
WITH_SENSORS = (
    "import sys; from edge_vision.nodes.diagnostics_node import DiagnosticsNode\n"
    "DiagnosticsNode.sensor_root = sys.argv.pop(1)\n"
    "from edge_vision.nodes.cli import main; sys.exit(main())"
)
COOLING = "sys/class/thermal/cooling_device2/cur_state"
# Infers every frame that is skipped as unchanged, and tolerates no miss among them.
STRICT = {"audit_rate": 1.0, "audit_max_hz": 1000.0, "max_miss_rate": 0.0}


def needed(*programs: str) -> None:
    for program in programs:
        if not shutil.which(program):
            pytest.skip(f"{program} is not installed: apt install prometheus")


def wait_for(alerts: Callable[[], set[tuple[str, str]]], *expected: tuple[str, str]) -> None:
    """Wait until these alerts fire, and no others."""
    wait_until(lambda: alerts() == set(expected), f"{expected}", lambda: time.sleep(0.5))


def slow_fade(path: Path) -> Path:
    """A clip in which people appear so slowly that no two neighbouring frames differ."""
    one, other = (video_frame("vtest.avi", n).image for n in (0, 300))
    shares = np.concatenate([np.zeros(20), np.linspace(0, 1, 200), np.ones(20), np.linspace(1, 0, 200)])
    height_px, width_px = one.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 20.0, (width_px, height_px))
    for share in shares.tolist():
        writer.write(cv2.addWeighted(other, share, one, 1.0 - share, 0.0))
    writer.release()
    return path


@pytest.fixture
def firing(tmp_path: Path) -> Iterator[Callable[[int], Callable[[], set[tuple[str, str]]]]]:
    """Starts a Prometheus that scrapes a port once a second, with the alerts after 2 s in place of 30 or 60.
    Returns what gets the alerts that fire, each with its camera."""
    needed("prometheus")
    started: list[subprocess.Popen[bytes]] = []

    def start(target: int) -> Callable[[], set[tuple[str, str]]]:
        port, rules = free_port(), (REPO / "config" / "prometheus_alerts.yaml").read_text("utf-8")
        (tmp_path / "alerts.yaml").write_text(re.sub(r"for: \w+", "for: 2s", rules))
        job = {"job_name": "edge_vision", "static_configs": [{"targets": [f"127.0.0.1:{target}"]}]}
        every_second = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config = {"global": every_second, "scrape_configs": [job], "rule_files": ["alerts.yaml"]}
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))  # JSON is YAML.
        files = (f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/tsdb")
        address = f"127.0.0.1:{port}"
        command = ["prometheus", *files, f"--web.listen-address={address}"]
        with (tmp_path / "prometheus.log").open("w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT))

        def get() -> set[tuple[str, str]]:
            try:
                with urllib.request.urlopen(f"http://{address}/api/v1/alerts", timeout=10) as answer:
                    alerts = json.load(answer)["data"]["alerts"]
            except OSError:
                return set()
            names = ((one["labels"]["alertname"], one["labels"].get("camera", "")) for one in alerts)
            return {name for name, one in zip(names, alerts, strict=True) if one["state"] == "firing"}

        return get

    yield start
    for process in started:
        process.terminate()
        process.wait(60)


def test_every_alert_fires_for_its_pipeline_alone_and_ends(launch, firing, tmp_path) -> None:
    clip, port = clip_or_skip("vtest.avi"), free_port()
    launch("metrics", "--port", port)
    alerts = firing(port)

    def pipeline(name: str, *arguments: object) -> object:
        root = plant(tmp_path / name, "jetson_orin_nano")
        command = (sys.executable, "-c", WITH_SENSORS, str(root))
        ros = ("--ros-args", "-r", f"__ns:=/{name}")
        return launch("pipeline", "--loop", *arguments[:-1], *ros, *arguments[-1], command=command)

    strict = [part for key, value in STRICT.items() for part in ("-p", f"{key}:={value}")]
    pipeline("front", "--source", slow_fade(tmp_path / "fade.avi"), strict)
    rear = pipeline("rear", "--source", clip, "--backend", "tensorrt", [])
    write(tmp_path / "rear", COOLING, "3")
    missed, throttled = ("MissRateHigh", "/front"), ("ThermalThrottle", "/rear")
    fallback, silent = ("BackendFallback", "/rear"), ("RobotSilent", "/rear")
    wait_for(alerts, missed, throttled, fallback)
    write(tmp_path / "rear", COOLING, "0")
    wait_for(alerts, missed, fallback)
    rear.process.send_signal(signal.SIGSTOP)
    wait_for(alerts, missed, silent)
    rear.process.send_signal(signal.SIGCONT)
    wait_for(alerts, missed, fallback)
    assert {name for name, _ in (missed, throttled, fallback, silent)} == DOCUMENTED


def test_a_robot_that_cannot_be_scraped_is_silent(firing) -> None:
    alerts = firing(free_port())
    wait_for(alerts, ("RobotSilent", ""))
