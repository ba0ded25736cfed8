#!/usr/bin/env python3
"""Measures the live page: `make bench-web`. Prints a table, and writes out/bench/web.json.

A camera of 640x480 at 10 Hz, the pipeline, the server and three clients, each a process of its own on this
machine. One client is stopped (SIGSTOP) while the two others are measured.

age            of `detections` on arrival in this process, without clients and with them, in turns.
server         CPU time of the server with three clients, as a share of one core.
glass to glass from the image's stamp to the arrival of the picture with its boxes in a client, median.
boxes          share of the pictures whose boxes have the picture's stamp.
reconnects     growth of the server over 20 connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from pathlib import Path
from typing import Any

import aiohttp
import cv2
from parts.benchmark import finish, make_parser, new_result
from parts.common import REPO, Row, at_least, at_most, script_environment, spread
from parts.process_stats import read_process

from edge_vision.evaluate.live.pipeline_process import PipelineProcess, isolate_domain
from edge_vision.offline.provenance import write_json

SIZE, RATE_HZ = (640, 480), 10.0
CAMERA = "/"
SETTLE_S, START_S = 3.0, 60.0
RECONNECTS = 20
_EXAMPLES = """examples:
  python bench/web.py                             about four minutes
  python bench/web.py --seconds 10 --rounds 1     a quick run
  python bench/web.py --strict                    exit status 1 where a target is missed"""


def main() -> int:
    if sys.argv[1:2] == ["camera"]:
        return camera(Path(sys.argv[2]))
    if sys.argv[1:2] == ["client"]:
        return asyncio.run(client(sys.argv[2], float(sys.argv[3])))
    options = _parser().parse_args()
    isolate_domain()
    # As the launch file does: images between processes.
    for name in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        os.environ.setdefault(name, str(REPO / "config" / "fastdds.xml"))
    result = new_result(options.video) | {"seconds": options.seconds, "rounds": []}
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder), result)
    write_json(options.out, result)
    return finish(options, result, rows(result))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("web", __doc__, _EXAMPLES)
    parser.add_argument("--seconds", type=float, default=30.0, help="measured, each")
    parser.add_argument("--rounds", type=int, default=3, help="without and with clients, alternating")
    parser.add_argument("--port", type=int, default=8655)
    return parser


def measure(options: argparse.Namespace, folder: Path, result: dict[str, Any]) -> None:
    """Fill the result. All processes end with this one."""
    from edge_vision.nodes.observers.discovery import observing_node
    from edge_vision.nodes.transport.qos import RESULTS

    started: list[Any] = []
    url = f"http://127.0.0.1:{options.port}"
    with observing_node("bench_web") as (node, executor):
        from vision_msgs.msg import Detection2DArray

        ages_ms: list[float] = []

        def on_detections(message: Any) -> None:
            stamp = message.header.stamp
            ages_ms.append((time.time_ns() - stamp.sec * 10**9 - stamp.nanosec) / 1e6)

        def spin(seconds: float) -> list[float]:
            """The ages on arrival during this time."""
            ages_ms.clear()
            until_s = time.monotonic() + seconds
            while time.monotonic() < until_s:
                executor.spin_once(timeout_sec=0.1)
            return list(ages_ms)

        subscription = node.create_subscription(Detection2DArray, "detections", on_detections, RESULTS)
        try:
            pipeline = PipelineProcess(["--backend", "onnxruntime"], folder / "pipeline")
            web = PipelineProcess(
                ["--port", str(options.port)], folder / "web", ("edge_vision.nodes.cli", "web")
            )
            started += [pipeline, web]
            source = script("camera", str(options.video))
            started.append(source)
            until_s = time.monotonic() + START_S
            while not spin(0.5):
                if time.monotonic() > until_s:
                    raise SystemExit("no detection came\n" + "\n".join(pipeline.last_lines()))
            spin(SETTLE_S)
            for number in range(options.rounds):
                result["rounds"].append(one_round(options.seconds, url, web.pid, spin, number % 2 > 0))
                print(f"round: {result['rounds'][-1]}", flush=True)
            result["reconnects"] = asyncio.run(reconnects(url, web.pid))
        finally:
            node.destroy_subscription(subscription)
            for one in started:
                one.stop() if isinstance(one, PipelineProcess) else one.kill()


def one_round(seconds: float, url: str, pid: int, spin: Any, clients_first: bool) -> dict[str, Any]:
    """Without clients, and with three of which one is stopped."""
    parts = [lambda: _without(seconds, pid, spin), lambda: _with(seconds, url, pid, spin)]
    found: dict[str, Any] = {}
    for part in reversed(parts) if clients_first else parts:
        found |= part()
    return found


def _without(seconds: float, pid: int, spin: Any) -> dict[str, Any]:
    spin(SETTLE_S)
    idle = read_process(pid)
    ages_ms = spin(seconds)
    return {"age_ms": spread(ages_ms), "idle_share": share(idle, read_process(pid))}


def _with(seconds: float, url: str, pid: int, spin: Any) -> dict[str, Any]:
    clients = [script("client", url, str(seconds + 4 * SETTLE_S)) for _ in range(3)]
    spin(SETTLE_S)
    clients[2].send_signal(signal.SIGSTOP)
    before = read_process(pid)
    with_clients = spin(seconds)
    after = read_process(pid)
    for one in clients[:2]:
        one.send_signal(signal.SIGINT)
    found = [json.loads(one.communicate(timeout=START_S)[0].splitlines()[-1]) for one in clients[:2]]
    clients[2].kill()
    clients[2].wait()
    return {
        "age_with_clients_ms": spread(with_clients),
        "server_share": share(before, after),
        "growth_kb": after.rss_kb - before.rss_kb,
        "clients": found,
    }


def share(before: Any, after: Any) -> float:
    """CPU time between two readings, as a share of one core."""
    return float((after.cpu_s - before.cpu_s) / (after.at_s - before.at_s))


async def reconnects(url: str, pid: int) -> dict[str, Any]:
    """Growth over connections that watch for a moment, after some that are not counted."""

    async def connect() -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/socket") as page:
            await page.send_json({"watch": [CAMERA]})
            await asyncio.sleep(0.5)

    for _ in range(5):
        await connect()
    await asyncio.sleep(1.0)
    before = read_process(pid)
    for _ in range(RECONNECTS):
        await connect()
    await asyncio.sleep(1.0)
    after = read_process(pid)
    return {
        "rss_kb": after.rss_kb - before.rss_kb,
        "fds": after.fds - before.fds,
        "threads": after.threads - before.threads,
    }


def rows(result: dict[str, Any]) -> list[Row]:
    """The table."""
    rounds = result["rounds"]
    ratios = [one["age_with_clients_ms"]["p50"] / one["age_ms"]["p50"] for one in rounds]
    ratio = statistics.median(ratios)
    clients = [client for one in rounds for client in one["clients"]]
    frames = sum(client["frames"] for client in clients)
    with_own = sum(client["own_boxes"] for client in clients)
    latency = spread([client["latency_ms"]["p50"] for client in clients if client["latency_ms"]["n"]])
    notes = ", ".join(
        f"{one['age_ms']['p50']:.1f} to {one['age_with_clients_ms']['p50']:.1f}" for one in rounds
    )
    worst = max(abs(one - 1.0) for one in ratios)
    again = result["reconnects"]
    return [
        Row("age of detections", ratio, "x", "1 +- 0.05", abs(ratio - 1.0) <= 0.05, f"ms: {notes}"),
        Row("  worst round", worst, "off 1"),
        at_most("server, 3 clients", 100 * max(o["server_share"] for o in rounds), 8, "% of a core"),
        Row("server, no client", 100 * max(o["idle_share"] for o in rounds), "% of a core"),
        at_most("glass to glass", latency.get("p50"), 60, "ms"),
        Row("pictures per client", frames / len(clients) / (result["seconds"] + 4), "per s"),
        at_least("boxes of the shown stamp", 100 * with_own / max(1, frames), 100, "%", f"of {frames}"),
        at_most("growth, a stopped client", rounds[-1]["growth_kb"] / 1e3, 2, "MB", "in the last round"),
        at_most("growth, 20 reconnects", again["rss_kb"] / 1e3, 2, "MB"),
        at_most("  files and threads", again["fds"] + again["threads"], 0, ""),
    ]


# The other processes.
def script(*arguments: str) -> subprocess.Popen[str]:
    """This script as a process of its own."""
    command = [sys.executable, str(REPO / "bench" / "web.py"), *arguments]
    return subprocess.Popen(command, env=script_environment(), stdout=subprocess.PIPE, text=True, cwd=REPO)


def camera(video: Path) -> int:
    """Publish the video, scaled, under stamps of the clock, until this process is killed."""
    import rclpy
    from sensor_msgs.msg import Image

    from edge_vision.nodes.interface.headers import header_of
    from edge_vision.nodes.transport.qos import VIEWED_IMAGE

    parent = os.getppid()
    rclpy.init()
    node = rclpy.create_node("bench_camera")
    publisher = node.create_publisher(Image, "image_raw", VIEWED_IMAGE)
    capture, due_s = cv2.VideoCapture(str(video)), time.monotonic()
    image = Image(width=SIZE[0], height=SIZE[1], step=3 * SIZE[0], encoding="bgr8")
    while os.getppid() == parent:
        ok, picture = capture.read()
        if not ok:
            capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
            continue
        image.data = array("B", cv2.resize(picture, SIZE).tobytes())
        due_s += 1 / RATE_HZ
        time.sleep(max(0.0, due_s - time.monotonic()))
        image.header = header_of(time.time_ns(), "camera")
        publisher.publish(image)
    return 0


async def client(url: str, seconds: float) -> int:
    """Watch until SIGINT, and print what arrived."""
    from edge_vision.web.hub import unpack_frame

    latencies_ms: list[float] = []
    own_boxes = 0
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, ended.set)
    async with aiohttp.ClientSession() as session, session.ws_connect(f"{url}/socket") as page:
        await page.send_json({"watch": [CAMERA]})
        until_s = time.monotonic() + seconds
        while not ended.is_set() and time.monotonic() < until_s:
            try:
                message = await page.receive(0.2)
            except asyncio.TimeoutError:
                continue
            if message.type is aiohttp.WSMsgType.BINARY:
                header, _ = unpack_frame(message.data)
                latencies_ms.append((time.time_ns() - int(header["stamp"])) / 1e6)
                own_boxes += header["tracks_stamp"] == header["stamp"]
                await page.send_json({"drawn": 1})
    latency = spread(latencies_ms)
    print(json.dumps({"frames": len(latencies_ms), "own_boxes": own_boxes, "latency_ms": latency}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
