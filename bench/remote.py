#!/usr/bin/env python3
"""Measures inference on a server: `make bench-remote`. Writes out/bench/remote.json.

Client and server are processes of this machine. The server is the real Triton if EDGE_VISION_TRITON_PYTHON
names a Python with nvidia-pytriton, else the tests' own server; both run the graph on ONNX Runtime.

remote_extra_age_ms   p95 of the time from a frame to its detections on the server, less that of local
                      inference with the same graph and one thread each; both in turns on the same frames.
client_cpu_ratio      CPU time of this process for a local inference, by that for a remote one; with_frame:
                      the same with preprocessing and decoding, which stay here.
killed_s, stopped_s   the live pipeline: from SIGKILL or SIGSTOP of the server to the first local detections.
lost                  frames that failed in these runs.
return_gap_ratio      longest interval between detections while the server takes over again, by the longest
                      before the fault.
route_auto_ratio      `route: auto` over a link with a round trip of 1, 200 and 1 ms: mean age by that of the
                      better of remote and local, in the worst of the phases. All three in turns. The server
                      has the int8 graph here, so that it is faster than the robot with fp32 and one thread.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from parts.benchmark import MODEL, finish, make_parser, new_result
from parts.common import REPO, Row, at_least, at_most, spread

sys.path[:0] = [str(REPO / "test"), str(REPO / "test" / "unit")]

from slow_link import SlowLink  # noqa: E402
from triton_server import PYTHON  # noqa: E402
from v2_server import Server  # noqa: E402

from edge_vision.backends import BackendRequest, Session, load_on  # noqa: E402
from edge_vision.bundles.store import Bundle, load_bundle  # noqa: E402
from edge_vision.core.frame import Frame  # noqa: E402
from edge_vision.detect.detector import Detector  # noqa: E402
from edge_vision.remote.routing import RoutedSession, Router  # noqa: E402

EXTRA_AGE_MS, CPU_RATIO, TAKEOVER_S, WANTED_S, ROUTE_RATIO = 8.0, 10.0, 2.0, 0.9, 1.1
LOCAL = BackendRequest(precision="fp32", threads=1)
ROUND_TRIPS_MS = (1.0, 200.0, 1.0)
_EXAMPLES = """examples:
  python bench/remote.py              about five minutes
  python bench/remote.py --quick
  python bench/remote.py --strict     exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    result = new_result(options.video) | {"quick": options.quick, "triton": PYTHON in os.environ}
    bundle, frames = load_bundle(MODEL), _frames(options.video)
    pairs, faults, phase_s = (40, 1, 8.0) if options.quick else (300, 5, 25.0)
    print(f"{pairs} frames here and there ...", flush=True)
    result["age"] = ages(bundle, frames, pairs)
    for name in ("SIGKILL", "SIGSTOP"):
        print(f"{name}, {faults} times ...", flush=True)
        result[name] = [takeover(options, bundle, name) for _ in range(faults)]
    print(f"route auto, {len(ROUND_TRIPS_MS)} times {phase_s:.0f} s ...", flush=True)
    result["route"] = route(bundle, frames, phase_s)
    return finish(options, result, _rows(result))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("remote", __doc__, _EXAMPLES)
    parser.add_argument("--domain", type=int, default=91, help="ROS domain of the runs")
    parser.add_argument("--quick", action="store_true", help="fewer frames and faults")
    return parser


def _frames(video: Path) -> list[Frame]:
    capture, found = cv2.VideoCapture(str(video)), []
    for _ in range(100):
        found.append(Frame(capture.read()[1], 0, "camera"))
    capture.release()
    return found


def _server(bundle: Bundle, *arguments: object) -> Server:
    python = os.environ.get(PYTHON)
    if python:
        return Server(bundle.folder, *arguments, script="triton_server.py", python=python)
    return Server(bundle.folder, *arguments)


def _remote(bundle: Bundle, url: str) -> Session:
    return load_on(bundle, "kserve", BackendRequest(remote_url=url))


class Timed:
    """A detector on a session, and what it takes: in ms, wall time per frame, CPU time per frame and run."""

    def __init__(self, bundle: Bundle, session: Session) -> None:
        self._detector = Detector.from_bundle(bundle, session)
        self._detector.warm_up(5)
        self._run, session.run = session.run, self._timed_run  # type: ignore[method-assign]
        self.age_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.run_cpu_ms: list[float] = []

    def _timed_run(self, tensors: Any) -> Any:
        began_s = time.process_time()
        found = self._run(tensors)
        self.run_cpu_ms.append((time.process_time() - began_s) * 1e3)
        return found

    def detect(self, frame: Frame) -> None:
        began_s, cpu_s = time.perf_counter(), time.process_time()
        self._detector.detect(frame)
        self.age_ms.append((time.perf_counter() - began_s) * 1e3)
        self.cpu_ms.append((time.process_time() - cpu_s) * 1e3)


def ages(bundle: Bundle, frames: list[Frame], pairs: int) -> dict[str, Any]:
    """The same frames on both, in turns."""
    server = _server(bundle)
    try:
        sessions = {
            "local": load_on(bundle, "onnxruntime", LOCAL),
            "remote": _remote(bundle, server.url),
        }
        both = {name: Timed(bundle, session) for name, session in sessions.items()}
        for number in range(pairs):
            for name in list(both)[:: 1 if number % 2 else -1]:
                both[name].detect(frames[number % len(frames)])
                time.sleep(0.02)  # As at a camera's rate.
        return {
            "actual": str(sessions["remote"].actual),
            **{
                name: {key: spread(getattr(one, key)) for key in ("age_ms", "cpu_ms", "run_cpu_ms")}
                for name, one in both.items()
            },
        }
    finally:
        server.kill()


def takeover(options: argparse.Namespace, bundle: Bundle, how: str) -> dict[str, Any]:
    """One fault of the server during the live pipeline, and its return."""
    from ros_cases import ALL, Robot, Running
    from vision_msgs.msg import Detection2DArray

    server, robot = _server(bundle), Robot(options.domain)
    detector = {"backend": "kserve", "remote_url": server.url, "watchdog_ms": 800.0}
    overrides = {
        "source": {"uri": str(options.video), "loop": True},
        "gate": {"enabled": False},
        "detector": detector,
    }
    running = Running(options.domain, ALL, overrides)
    came_s: list[float] = []
    robot.node.create_subscription(
        Detection2DArray, "detections", lambda _: came_s.append(time.monotonic()), 10
    )
    model, served = running["detector"].model, _Served(running["detector"])
    try:
        robot.wait(lambda: len(came_s) >= 30 and model.current.session.deadline_s < 10.0, "detections")
        before = max(np.diff(came_s[5:]))
        begun_s = time.monotonic()
        server.signal(getattr(signal, how))
        local_s = robot.wait(lambda: served.since("onnxruntime", begun_s), "the local backend")
        first_s = robot.wait(lambda: next((at for at in came_s if at >= local_s), None), "local detections")
        if how == "SIGKILL":
            server.kill()
            server.start()
        else:
            server.signal(signal.SIGCONT)
        back_s = robot.wait(lambda: served.since("kserve", first_s), "the return")
        robot.wait(lambda: came_s[-1] > back_s + 2.0, "detections of the server")
        after = [at for at in came_s if at > back_s - 2.0]
    finally:
        served.ended.set()
        running.end()
        robot.close()
        server.kill()
    ledger = running.ledger
    return {
        "takeover_s": first_s - begun_s,
        "return_s": back_s - first_s,
        "gap_ratio": float(max(np.diff(after)) / before),
        "lost": ledger["failed"] - ledger.get("failed.deactivated", 0),
        "ledger": ledger,
    }


class _Served:
    """When which backend began to serve."""

    def __init__(self, node: Any) -> None:
        self._node, self._changes, self.ended = node, [], threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        last = ""
        while not self.ended.wait(0.002):
            model = self._node.model.current
            if model and model.report.actual.backend != last:
                last = model.report.actual.backend
                self._changes.append((last, time.monotonic()))

    def since(self, name: str, after_s: float) -> float | None:
        return next((at for found, at in self._changes if found == name and at > after_s), None)


def route(bundle: Bundle, frames: list[Frame], phase_s: float) -> list[dict[str, Any]]:
    """Mean ages in each phase, of local, remote and auto in turns over the same link."""
    server = _server(bundle, "--precision", "int8")
    link = SlowLink(server.port)
    try:
        link.set(ROUND_TRIPS_MS[0])
        local, far, asked = (
            load_on(bundle, "onnxruntime", LOCAL),
            _remote(bundle, link.url),
            _remote(bundle, link.url),
        )
        here = load_on(bundle, "onnxruntime", LOCAL)
        methods = {"local": Timed(bundle, local), "remote": Timed(bundle, far)}
        for one in methods.values():
            for frame in frames[:10]:
                one.detect(frame)
        times_s = (np.median(one.age_ms) / 1e3 for one in methods.values())
        methods["auto"] = Timed(bundle, RoutedSession(asked, here, Router(*times_s)))
        return [_phase(link, round_trip_ms, methods, frames, phase_s) for round_trip_ms in ROUND_TRIPS_MS]
    finally:
        link.close()
        server.kill()


def _phase(
    link: SlowLink, round_trip_ms: float, methods: dict[str, Timed], frames: list[Frame], phase_s: float
) -> dict[str, Any]:
    link.set(round_trip_ms)
    for one in methods.values():
        one.age_ms.clear()
    until_s, number = time.monotonic() + phase_s, 0
    while time.monotonic() < until_s:
        number += 1
        for shift in range(len(methods)):
            name = list(methods)[(number + shift) % len(methods)]
            methods[name].detect(frames[number % len(frames)])
    ages_ms = {
        name: spread(one.age_ms) | {"mean": float(np.mean(one.age_ms))} for name, one in methods.items()
    }
    better = min(ages_ms["local"]["mean"], ages_ms["remote"]["mean"])
    return {"round_trip_ms": round_trip_ms, **ages_ms, "ratio": ages_ms["auto"]["mean"] / better}


def _rows(result: dict[str, Any]) -> list[Row]:
    local, remote = result["age"]["local"], result["age"]["remote"]
    extra = remote["age_ms"]["p95"] - local["age_ms"]["p95"]
    note = f"p95 {remote['age_ms']['p95']:.1f}, local {local['age_ms']['p95']:.1f}"
    by_cpu: Callable[[str], float] = lambda key: local[key]["p50"] / remote[key]["p50"]  # noqa: E731
    rows = [
        at_most("remote_extra_age_ms", extra, EXTRA_AGE_MS, "ms", note),
        at_least(
            "client_cpu_ratio",
            by_cpu("run_cpu_ms"),
            CPU_RATIO,
            "",
            f"{local['run_cpu_ms']['p50']:.1f} ms to {remote['run_cpu_ms']['p50']:.2f} ms",
        ),
        Row("client_cpu_ratio.with_frame", by_cpu("cpu_ms"), ""),
    ]
    for name, fault in (("killed_s", "SIGKILL"), ("stopped_s", "SIGSTOP")):
        runs = result[fault]
        worst = max(one["takeover_s"] for one in runs)
        back_s = max(one["return_s"] for one in runs)
        note = f"the longest of {len(runs)}, {WANTED_S} wanted; back after {back_s:.1f} s"
        rows.append(at_most(name, worst, TAKEOVER_S, "s", note))
    runs = [*result["SIGKILL"], *result["SIGSTOP"]]
    received = sum(one["ledger"]["received"] for one in runs)
    rows.append(at_most("lost", sum(one["lost"] for one in runs), 0, "", f"of {received} frames"))
    rows.append(at_most("return_gap_ratio", max(one["gap_ratio"] for one in runs), 2.0, ""))
    phases = "; ".join(
        f"{one['round_trip_ms']:.0f} ms: "
        + ", ".join(f"{name} {one[name]['mean']:.0f}" for name in ("local", "remote", "auto"))
        for one in result["route"]
    )
    worst = max(one["ratio"] for one in result["route"])
    return [*rows, at_most("route_auto_ratio", worst, ROUTE_RATIO, "", phases)]


if __name__ == "__main__":
    sys.exit(main())
