"""The metrics of a real pipeline over HTTP, and a pipeline that does not depend on them."""

from __future__ import annotations

import socket
import urllib.request

from model_cases import clip_or_skip
from prometheus_client.parser import text_string_to_metric_families
from ros_cases import wait_until


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def scrape(port: int) -> dict[tuple[str, str], float]:
    """(Sample, outcome) -> sum of the values; empty while the server does not answer."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}
    sums: dict[tuple[str, str], float] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            key = one.name.removeprefix("edge_vision_"), one.labels.get("outcome", "")
            sums[key] = sums.get(key, 0.0) + one.value
    return sums


def inferred(port: int) -> float:
    return scrape(port).get(("frames_total", "inferred"), 0.0)


def test_two_pipelines_are_scraped_and_go_on_without_the_server(launch) -> None:
    port = free_port()
    video = clip_or_skip("vtest.avi")
    metrics = launch("metrics", "--port", port)
    pipeline = launch("pipeline", "--cameras", "front,rear", "--source", video, "--loop")
    wait_until(lambda: scrape(port).get(("up", "")) == 2, "both pipelines")
    wait_until(lambda: scrape(port).get(("detections_age_seconds_count", ""), 0) > 5, "ages of detections")
    found = scrape(port)
    outcomes = sum(value for (name, _), value in found.items() if name == "frames_total")
    assert outcomes + found["frames_in_flight", ""] == found["frames_received_total", ""] > 0
    assert 0 < found["detections_age_seconds_sum", ""] / found["detections_age_seconds_count", ""] < 60
    assert found["process_resident_memory_bytes", ""] > 50e6

    taken = launch("metrics", "--port", port)
    assert taken.process.wait(60) == 1 and "cannot listen" in taken.output
    before = inferred(port)
    assert metrics.end() == 0
    assert scrape(port) == {} and pipeline.process.poll() is None
    again = launch("metrics", "--port", port)
    wait_until(lambda: inferred(port) > before, "the pipeline to go on")
    assert again.end() == 0
