"""`edge-vision metrics`: serves the metrics of all running pipelines to Prometheus."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

from edge_vision.core.command_line import with_examples
from edge_vision.core.missing_package import missing_package
from edge_vision.core.printable import printable_error, printable_output
from edge_vision.web.access import listen_error, port_number

PORT = 9464
# Longest delay of a signal.
TURN_S = 0.25
_EXAMPLES = """examples:
  edge-vision metrics                           http://127.0.0.1:9464/metrics
  edge-vision metrics --address 0.0.0.0         for a Prometheus on another machine
  curl -s localhost:9464/metrics | grep frames_total      what it serves

exit codes: 0 stopped by SIGINT or SIGTERM, 1 the port cannot be opened or a package is missing, 2 wrong
arguments"""


@printable_output()
def main(args: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM. Returns the exit code."""
    argv = list(sys.argv[1:] if args is None else args)
    stop = threading.Event()
    options, ros_args = _parse(argv)
    try:
        from prometheus_client import CollectorRegistry, start_http_server

        from edge_vision.cli.metrics.exposition import PipelineMetrics
        from edge_vision.nodes.observers.metrics_listener import MetricsListener
    except ModuleNotFoundError as error:
        print(f"metrics: {missing_package(error)}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    metrics, registry = PipelineMetrics(time.monotonic), CollectorRegistry()
    registry.register(metrics)
    where = f"{options.address}:{options.port}"
    try:
        server, thread = start_http_server(options.port, options.address, registry)
    except OSError as error:
        print(f"metrics: {listen_error(options.address, options.port, error)}", file=sys.stderr)
        return 1
    try:
        return _listen(MetricsListener(metrics, ["metrics", *NODE_NAME, *ros_args]), where, stop)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


NODE_NAME = ("--ros-args", "-r", "__node:=edge_vision_metrics")


def _listen(listener: Any, where: str, stop: threading.Event) -> int:
    try:
        with listener:
            print(f"metrics: http://{where}/metrics", flush=True)
            while not stop.is_set():
                listener.spin(TURN_S)
    except RuntimeError as error:  # A malformed remapping.
        print(f"metrics: {printable_error(error)}", file=sys.stderr)
        return 2
    return 0


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the arguments from `--ros-args` on."""
    at = argv.index("--ros-args") if "--ros-args" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="edge-vision metrics",
        **with_examples(
            "Serve the state of all running pipelines to Prometheus: frame accounting, ages, times, audit, "
            "backend, resources, updates.",
            _EXAMPLES,
        ),
    )
    parser.add_argument("--port", type=port_number, default=PORT, help="default: %(default)s; 1 to 65535")
    parser.add_argument(
        "--address",
        default="127.0.0.1",
        help="address to listen on (default: %(default)s, only this machine); whoever reaches it can read "
        "the metrics",
    )
    return parser.parse_args(argv[:at]), argv[at:]
