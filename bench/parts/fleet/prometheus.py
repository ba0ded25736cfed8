"""The page of metrics of a robot, and what a Prometheus server needs to scrape many of them."""

from __future__ import annotations

import json
import subprocess
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, generate_latest
from test_metrics import histogram, report

from edge_vision.cli.metrics.exposition import PipelineMetrics
from edge_vision.core.diagnostic_status import StatusEntry

TARGETS = (250, 1000)
INTERVAL_S = 15
WINDOW_S = 45.0
"""Measured after as long, in which every target is scraped at least three times."""


def page_of_a_robot() -> bytes:
    """What `edge-vision metrics` serves for one camera with a gate, a detector and an updater."""
    metrics = PipelineMetrics(lambda: 0.0)
    times = histogram(20, 40, 200)
    steps = ("age", "process", "preprocess", "inference", "postprocess", "wait")
    detector = {f"{step}_ms.histogram": times for step in steps}
    metrics.update(report(detector=detector, gate={"process_ms.histogram": times}))
    values = {
        "serving": "ssd 2.0.0",
        "candidate": "",
        "last_check": "serving",
        "tries": "0",
        "probation": "False",
    }
    metrics.update_updater("/front", StatusEntry("front/updater", "/front", values=values))
    registry = CollectorRegistry()
    registry.register(metrics)
    return generate_latest(registry)


class _Robots(ThreadingHTTPServer):
    """Serves the page at every path."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self, page: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *args: Any) -> None:
                """Silent."""

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()


def prometheus_cost(program: Path, page: bytes) -> dict[str, Any]:
    """Memory and CPU time of a Prometheus server per target, from two numbers of targets."""
    robots = _Robots(page)
    try:
        runs = {count: _run(program, count, robots.server_port) for count in TARGETS}
    finally:
        robots.shutdown()
        robots.server_close()
    few, many = TARGETS
    slope = {key: (runs[many][key] - runs[few][key]) / (many - few) for key in runs[many]}
    return {
        "prometheus": runs,
        "interval_s": INTERVAL_S,
        "mb_per_target": slope["mb"],
        "cpu_ms_per_scrape": slope["cpu_share"] * INTERVAL_S * 1e3,
    }


def _run(program: Path, count: int, port: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "targets.json").write_text(
            json.dumps(
                [
                    {
                        "targets": [f"127.0.0.1:{port}"],
                        "labels": {"__metrics_path__": f"/{n}", "instance": f"robot{n}"},
                    }
                    for n in range(count)
                ]
            )
        )
        (folder / "prometheus.yml").write_text(
            f"global: {{scrape_interval: {INTERVAL_S}s}}\n"
            "scrape_configs:\n- job_name: edge_vision\n"
            f"  file_sd_configs: [{{files: [{folder / 'targets.json'}]}}]\n"
        )
        child = subprocess.Popen(
            [
                str(program),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:18340",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            time.sleep(WINDOW_S)
            usage = psutil.Process(child.pid)
            before_s, begin_s = sum(usage.cpu_times()[:2]), time.monotonic()
            memory = []
            while time.monotonic() - begin_s < WINDOW_S:
                memory.append(usage.memory_info().rss / 1e6)
                time.sleep(1)
            cpu = (sum(usage.cpu_times()[:2]) - before_s) / (time.monotonic() - begin_s)
            series = _series("http://127.0.0.1:18340/api/v1/status/tsdb")
        finally:
            child.terminate()
            child.wait()
    print(
        f"Prometheus, {count} targets: {median(memory):.0f} MB, {cpu:.1%} of a core, {series} series",
        flush=True,
    )
    return {"mb": median(memory), "cpu_share": cpu, "series": float(series)}


def _series(url: str) -> int:
    with urllib.request.urlopen(url) as answer:
        return int(json.load(answer)["data"]["headStats"]["numSeries"])
