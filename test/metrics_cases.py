"""The metrics over HTTP, as Prometheus gets them."""

from __future__ import annotations

import socket
import urllib.request

from prometheus_client.parser import text_string_to_metric_families


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
