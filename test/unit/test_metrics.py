"""The metrics without ROS: statuses in, a scrape over HTTP out, parsed by Prometheus' own parser."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.parser import text_string_to_metric_families
from test_top import DETECTOR, GATE, LEDGER, PROCESS, SYSTEM

from edge_vision.cli.metrics import exposition
from edge_vision.cli.metrics.exposition import PipelineMetrics
from edge_vision.cli.top.board import MAX_CAMERAS, SILENT_S
from edge_vision.core.diagnostic_status import StatusEntry
from edge_vision.core.latency import LatencyWindow
from edge_vision.core.ledger import MAX_REASONS, OTHER

REPO = Path(__file__).resolve().parents[2]
PARTS = {
    "detector": DETECTOR,
    "gate": GATE,
    "process 77": PROCESS,
    "system": SYSTEM,
    "output": {"cause": "none"},
}


class Time:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Scraped:
    """A collector behind a real HTTP server."""

    def __init__(self) -> None:
        self.time = Time()
        self.metrics = PipelineMetrics(self.time)
        registry = CollectorRegistry()
        registry.register(self.metrics)
        self.server, self.thread = start_http_server(0, "127.0.0.1", registry)

    def text(self) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.server.server_port}/metrics") as answer:
            return answer.read().decode()

    def values(self, name: str, **labels: str) -> list[float]:
        """The values of the samples with these labels."""
        families = text_string_to_metric_families(self.text())
        samples = [one for family in families for one in family.samples if one.name == f"edge_vision_{name}"]
        return [one.value for one in samples if labels.items() <= one.labels.items()]


@pytest.fixture
def scraped() -> Iterator[Scraped]:
    scraped = Scraped()
    yield scraped
    scraped.server.shutdown()
    scraped.server.server_close()
    scraped.thread.join()


def report(namespace: str = "/front", **changed: dict[str, str]) -> list[StatusEntry]:
    """A full message of /diagnostics, with some values changed."""
    parts = {name: {**values, **changed.get(name, {})} for name, values in PARTS.items()}
    parts |= {name: values for name, values in changed.items() if name not in parts}
    prefix = namespace.strip("/") + "/" if namespace != "/" else ""
    return [StatusEntry(prefix + name, namespace, 0, "", values) for name, values in parts.items()]


def test_outcomes_add_up_to_the_ledger(scraped: Scraped) -> None:
    scraped.metrics.update(report())
    for outcome in ("inferred", "gated", "rejected", "superseded", "failed"):
        assert sum(scraped.values("frames_total", camera="/front", outcome=outcome)) == LEDGER[outcome]
    assert scraped.values("frames_total", outcome="gated", reason="still") == [41]
    settled, open_frames = scraped.values("frames_total"), scraped.values("frames_in_flight")
    assert sum(settled) + sum(open_frames) == sum(scraped.values("frames_received_total"))


def test_values_are_in_base_units(scraped: Scraped) -> None:
    scraped.metrics.update(report())
    assert scraped.values("host_memory_used_bytes") == [2.1e9]
    assert scraped.values("host_cpu_ratio") == [pytest.approx(0.612)]
    assert scraped.values("process_resident_memory_bytes") == [pytest.approx(190.2e6)]
    assert scraped.values("host_temperature_celsius") == [66.5]
    assert scraped.values("gate_blind_seconds") == [pytest.approx(0.8123)]
    assert scraped.values("audit_miss_ratio") == [0.024] and scraped.values("audit_open") == [0]


def test_what_is_unavailable_is_absent_and_not_zero(scraped: Scraped) -> None:
    gone = "unavailable: no sensor"
    scraped.metrics.update(report(system={"power_w": gone, "throttling": gone, "temperature_c.max": "nan"}))
    for name in ("host_power_watts", "host_throttling", "host_temperature_celsius", "update_probation"):
        assert scraped.values(name) == []


def test_a_fallback_and_its_backend(scraped: Scraped) -> None:
    scraped.metrics.update(report())
    scraped.metrics.update(report("/rear", detector={"backend.fallback_reason": ""}))
    assert scraped.values("backend_fallback", camera="/front") == [1]
    assert scraped.values("backend_fallback", camera="/rear") == [0]
    assert scraped.values("backend_info", camera="/rear", backend="onnxruntime 1.32.0", device="cpu") == [1]


def test_throttling_and_the_cause(scraped: Scraped) -> None:
    scraped.metrics.update(
        report(system={"throttling": "passive cooling"}, output={"cause": "camera_silent"})
    )
    assert scraped.values("host_throttling") == [1]
    assert scraped.values("cause", cause="camera_silent") == [1] and len(scraped.values("cause")) == 1


def test_a_silent_pipeline_is_down_and_has_no_other_series(scraped: Scraped) -> None:
    scraped.metrics.update(report())
    scraped.time.now_s = SILENT_S + 0.1
    scraped.metrics.update(report("/rear"))
    assert scraped.values("up", camera="/front") == [0] and scraped.values("up", camera="/rear") == [1]
    assert scraped.values("frames_received_total", camera="/front") == []


def histogram(*durations_ms: float) -> str:
    window = LatencyWindow()
    for duration_ms in durations_ms:
        window.add(duration_ms)
    return window.histogram()


def test_ages_and_times_of_steps_are_histograms(scraped: Scraped) -> None:
    found = histogram(4, 20, 110, 120, 9000)
    scraped.metrics.update(report(detector={"age_ms.histogram": found, "inference_ms.histogram": found}))
    for name, labels in (
        ("detections_age_seconds", {"camera": "/front"}),
        ("step_seconds", {"camera": "/front", "stage": "detector", "step": "inference"}),
    ):
        values = [
            scraped.values(f"{name}_bucket", le=le, **labels) for le in ("0.01", "0.02", "0.15", "+Inf")
        ]
        assert values == [[1], [2], [4], [5]]
        assert scraped.values(f"{name}_sum", **labels) == [pytest.approx(9.254)]
        assert scraped.values(f"{name}_count", **labels) == [5]


def test_counts_below_zero_are_absent(scraped: Scraped) -> None:
    values = {"ledger.received": "-5", "ledger.gated": "4", "ledger.gated.x": "-7", "ledger.failed": "-1"}
    scraped.metrics.update(report(detector=values))
    assert min(scraped.values("frames_total")) >= 0 and scraped.values("frames_total", outcome="failed") == []
    assert scraped.values("frames_received_total") == []


def of_counts(*counts: object, sum_ms: object = 5) -> str:
    """A histogram with these counts, the last one for the other buckets, too."""
    more = [counts[-1]] * (len(histogram(3).split()) - 1 - len(counts))
    return " ".join(map(str, (*counts, *more, sum_ms)))


@pytest.mark.parametrize(
    "text",
    [
        *("", "1 2 3", "x" * 99, histogram(3).replace(" 1 ", " nan "), histogram()),
        *(of_counts(3, 2), of_counts(-1), of_counts(1.5), of_counts(1, sum_ms=-5), of_counts("1e308")),
    ],
)
def test_a_histogram_that_is_damaged_or_empty_is_absent(scraped: Scraped, text: str) -> None:
    scraped.metrics.update(report(detector={"inference_ms.histogram": text}))
    assert scraped.values("step_seconds_count") == []


def test_ages_by_the_stamps_of_a_file_are_absent(scraped: Scraped) -> None:
    source = {"uri": "drive.mcap", "stamps": "recorded"}
    scraped.metrics.update(report(source=source, detector={"age_ms.histogram": histogram(1.7e12)}))
    assert scraped.values("detections_age_seconds_count") == []


def test_update_state_comes_from_the_updater_and_ends_with_it(scraped: Scraped) -> None:
    scraped.metrics.update(report())
    values = {
        "probation": "True",
        "serving": "ssd 2.0.0",
        "candidate": "",
        "last_check": "serving",
        "tries": "1",
    }
    scraped.metrics.update_updater("/front", StatusEntry("front/updater", "/front", values=values))
    assert scraped.values("update_probation") == [1] and scraped.values("update_tries") == [1]
    assert scraped.values("update_info", serving="ssd 2.0.0", last_check="serving") == [1]
    scraped.time.now_s = SILENT_S + 0.1
    scraped.metrics.update(report())
    assert scraped.values("update_probation") == []


def test_labels_are_bounded(scraped: Scraped) -> None:
    """A hostile publisher cannot make more series: reasons, cameras and texts are limited."""
    reasons = {f"ledger.failed.r{i}": "1" for i in range(5000)} | {"ledger.failed": "6000"}
    reasons |= {'ledger.failed.evil"} 1\n': "1", "model": "m" * 9999}
    scraped.metrics.update(report(detector=reasons))
    for i in range(3 * MAX_CAMERAS):
        scraped.metrics.update(report(f"/camera{i}"))
    scraped.metrics.update(report("/bad name"))
    failed = scraped.values("frames_total", camera="/front", outcome="failed")
    assert len(failed) <= MAX_REASONS + 2 and sum(failed) == 6000
    assert len(scraped.values("up")) == MAX_CAMERAS
    assert max(map(len, re.findall(r'="((?:[^"\\]|\\.)*)"', scraped.text()))) <= exposition.MAX_LABEL_CHARS


def test_labels_are_bounded_over_time(scraped: Scraped) -> None:
    """One value after the other would fill a Prometheus as well."""
    seen: set[tuple[str, str]] = set()
    for i in range(100):
        changed = {"detector": {"model": f"m{i}", f"ledger.gated.r{i}": "1"}, "output": {"cause": f"c{i}"}}
        scraped.metrics.update(report(**changed))
        labels = re.findall(r'(model|reason|cause)="([^"]*)"', scraped.text())
        seen.update(labels)
    assert all(
        sum(name == one for name, _ in seen) <= 3 * MAX_REASONS for one in ("model", "reason", "cause")
    )
    assert ("cause", OTHER) in seen and ("model", "m99") not in seen


def test_other_software_on_diagnostics_is_no_pipeline(scraped: Scraped) -> None:
    scraped.metrics.update([StatusEntry("arm/motor", "/arm", values={"amps": "3"})])
    assert scraped.values("up") == []


def test_names_follow_the_conventions(scraped: Scraped) -> None:
    scraped.metrics.update(report(updater={"probation": "False", "tries": "0"}))
    for line in re.findall(r"^# TYPE (.*)$", scraped.text(), re.MULTILINE):
        name, kind = line.split()
        assert re.fullmatch(r"edge_vision(_[a-z0-9]+)+", name)
        assert name.endswith("_total") == (kind == "counter"), line
        assert not re.search(r"_(ms|mb|percent|w|c)(_|$)", name), line


def full_report() -> list[StatusEntry]:
    """Of a pipeline with all parts and values."""
    numbers: dict[str, dict[str, str]] = {"process 77": {"cpu_s": "12.5"}}
    for part, key, *_ in exposition.NUMBERS:
        numbers.setdefault(part, {})[key] = "1"
    numbers["detector"] |= {f"{name}.histogram": histogram(5) for name in ("age_ms", "process_ms")}
    for part, _, keys, _ in exposition.INFOS:
        numbers[part].update(dict.fromkeys(keys.values(), "text"))
    return report(**numbers)


def known_names() -> set[str]:
    """Every name of a sample that a pipeline can have."""
    metrics = PipelineMetrics(Time())
    metrics.update(full_report())
    return {one.name for family in metrics.collect() for one in family.samples}


@pytest.mark.parametrize("file", ["grafana_dashboard.json", "prometheus_alerts.yaml"])
def test_dashboard_and_alerts_use_metrics_that_exist(file: str) -> None:
    text = (REPO / "config" / file).read_text()
    used = set(re.findall(r"edge_vision_[a-z0-9_]+", text))
    assert len(used) > 3 and used <= known_names()


def test_the_alerts_are_those_of_the_documentation() -> None:
    groups = yaml.safe_load((REPO / "config" / "prometheus_alerts.yaml").read_text())["groups"]
    names = {rule["alert"] for group in groups for rule in group["rules"]}
    assert names == {"RobotSilent", "MissRateHigh", "ThermalThrottle", "BackendFallback"}
    assert all(f"`{name}`" in (REPO / "docs" / "metrics.md").read_text() for name in names)


@pytest.mark.parametrize("kind", ["rules", "metrics"])
def test_promtool_has_no_remark(scraped: Scraped, kind: str) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed: apt install prometheus")
    scraped.metrics.update(full_report())
    cases = REPO / "test" / "unit" / "data" / "prometheus_alerts_test.yaml"
    command = ["promtool", "check", "metrics"] if kind == "metrics" else ["promtool", "test", "rules", cases]
    done = subprocess.run(command, input=scraped.text(), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout


def test_every_metric_is_documented() -> None:
    text = (REPO / "docs" / "metrics.md").read_text()
    bare = {re.sub(r"_(bucket|sum|count)$", "", name).removeprefix("edge_vision_") for name in known_names()}
    assert [name for name in sorted(bare) if f"`{name}`" not in text] == []


def test_the_dashboard_is_complete() -> None:
    board = json.loads((REPO / "config" / "grafana_dashboard.json").read_text())
    assert board["title"] and len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) >= 8
    assert all(
        panel["targets"] and panel["datasource"]["uid"] == "${datasource}" for panel in board["panels"]
    )
    # Grafana's schema requires the list. Without a merge, a table shows only one of its queries.
    assert board["annotations"] == {"list": []}
    tables = [one for one in board["panels"] if one["type"] == "table" and len(one["targets"]) > 1]
    assert tables and all(one["transformations"][0]["id"] == "merge" for one in tables)


def test_a_port_that_is_taken_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "edge_vision", "metrics", "--port", port]
        pytest.importorskip("rclpy", reason="rclpy is not installed: source ROS 2, or run `make setup`")
        done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=100)
    assert done.returncode == 1 and done.stdout == ""
    assert re.fullmatch(
        f"metrics: expected a free port, cannot listen on 127.0.0.1:{port}: .*in use. Choose.*\n", done.stderr
    )
