"""The metrics of a real pipeline over HTTP, and a pipeline that does not depend on them."""

from __future__ import annotations

from metrics_cases import free_port, scrape
from model_cases import clip_or_skip
from ros_cases import wait_until


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
    assert found["step_seconds_count", ""] > found["frames_total", "inferred"]
    assert found["process_resident_memory_bytes", ""] > 50e6

    taken = launch("metrics", "--port", port)
    assert taken.process.wait(60) == 1 and "cannot listen" in taken.output
    before = inferred(port)
    assert metrics.end() == 0
    assert scrape(port) == {} and pipeline.process.poll() is None
    again = launch("metrics", "--port", port)
    wait_until(lambda: inferred(port) > before, "the pipeline to go on")
    assert again.end() == 0
