#!/usr/bin/env python3
"""Measures what a backend that dies costs: `make bench-failover`. Writes out/bench/failover.json.

The real pipeline plays a clip at its own rate, in this process; a robot in a context of its own listens over
DDS. The backend is ONNX Runtime with a fault that comes on request; the one that takes over is ONNX Runtime.

takeover_dies_s    from the first run that raises to the first detections of the backend that takes over.
takeover_hangs_s   from the begin of a run that does not return to the same. watchdog_ms is the default's.
swap_s             from setting the parameter `model` to the first detections of the other bundle.
swaps_lost         frames that failed during the swaps, but for one on its way when the pipeline was ended.
                   Every second swap is to a damaged bundle, which must be refused.
swaps_rss_growth   the least memory during the last fifth of the swaps over the least during the second.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from parts.benchmark import MODEL, finish, make_parser, new_result
from parts.common import REPO, Row, at_most, spread

sys.path[:0] = [str(REPO / "test"), str(REPO / "test" / "unit")]

from fake_backend import FakeBackend, Fault, register  # noqa: E402

from edge_vision.bundles.store import bundles_dir  # noqa: E402

TAKEOVER_S, GROWTH = 2.0, 1.02
BEFORE = 8  # Detections before the fault: the watchdog knows by then how long a run takes.
_EXAMPLES = """examples:
  python bench/failover.py              about three minutes
  python bench/failover.py --quick
  python bench/failover.py --strict     exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    register(pytest.MonkeyPatch())
    runs, swaps = (2, 10) if options.quick else (10, 100)
    result = new_result(options.video) | {"quick": options.quick}
    for how in ("dies", "hangs"):
        print(f"{how}, {runs} times ...", flush=True)
        times = [takeover_s(options, how) for _ in range(runs)]
        result[f"takeover_{how}_s"] = {**spread(times), "max": max(times), "runs": times}
    print(f"{swaps} swaps ...", flush=True)
    result["swaps"] = swapping(options, swaps)
    return finish(options, result, _rows(result))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("failover", __doc__, _EXAMPLES)
    parser.add_argument("--domain", type=int, default=91, help="ROS domain of the runs")
    parser.add_argument("--quick", action="store_true", help="fewer runs and swaps")
    return parser


class Scene:
    """The whole pipeline on a clip, and a robot that listens. The time of each message is when it came."""

    def __init__(self, options: argparse.Namespace, detector: dict[str, Any]) -> None:
        from ros_cases import ALL, Robot, Running
        from vision_msgs.msg import Detection2DArray

        from edge_vision.nodes.interface.specs import DETECTOR

        self.robot = Robot(options.domain)
        source = {"uri": str(options.video), "loop": True}
        # The tests switch it off.
        detector = {"watchdog_ms": DETECTOR.param("watchdog_ms").default, **detector}
        self.running = Running(options.domain, ALL, {"source": source, "detector": detector})
        self.came_s: list[float] = []
        self.robot.node.create_subscription(
            Detection2DArray, "detections", lambda _: self.came_s.append(time.monotonic()), 10
        )
        self.detector = self.running["detector"]

    def wait(self, happened: Callable[[], Any], what: str) -> None:
        self.robot.wait(happened, what)

    def end(self) -> dict[str, int]:
        self.running.end()
        self.robot.close()
        return self.running.ledger


def takeover_s(options: argparse.Namespace, how: str) -> float:
    """One fault in the middle of the clip."""
    scene, go_on, begun_s = Scene(options, {"backend": "fake"}), threading.Event(), []
    try:
        scene.wait(lambda: len(scene.came_s) >= BEFORE, "the first detections")
        session = scene.detector.model.current.session
        FakeBackend.standing = Fault(error="gone")
        run = session.run

        def fault(tensors: Any) -> Any:
            begun_s.append(time.monotonic())
            if how == "hangs":
                go_on.wait(30.0)
                return run(tensors)
            session.fault = Fault(error="gone")
            return run(tensors)

        session.run = fault
        scene.wait(lambda: begun_s, "the fault")
        scene.wait(lambda: any(came > begun_s[0] + 1e-3 for came in scene.came_s), "the takeover")
        served = scene.detector.model.current.report.actual.backend
        if served != "onnxruntime":
            raise SystemExit(f"expected onnxruntime to take over, {served} serves")
        return next(came for came in scene.came_s if came > begun_s[0] + 1e-3) - begun_s[0]
    finally:
        FakeBackend.standing = Fault()
        go_on.set()
        scene.end()


def swapping(options: argparse.Namespace, swaps: int) -> dict[str, Any]:
    """Good and damaged bundles in turns, while the clip plays."""
    with tempfile.TemporaryDirectory() as folder:
        first, second, damaged = _bundles(Path(folder))
        scene = Scene(options, {"model": str(first), "backend": "onnxruntime"})
        swap_s: list[float] = []
        rss: list[int] = []
        try:
            scene.wait(lambda: scene.came_s, "the first detections")
            for number in range(swaps):
                if number % 2:
                    _set_model(scene, damaged)
                    scene.wait(lambda: str(damaged) in scene.detector.model.manager.swap_error, "the refusal")
                else:
                    good = (second, first)[number // 2 % 2]
                    begun_s = time.monotonic()
                    _set_model(scene, good)
                    scene.wait(
                        lambda good=good: scene.detector.model.current.bundle.folder == good, "the swap"
                    )
                    at_s = time.monotonic()
                    scene.wait(lambda at_s=at_s: scene.came_s[-1] > at_s, "detections of the new model")
                    swap_s.append(scene.came_s[-1] - begun_s)
                rss.append(psutil.Process().memory_info().rss)
        finally:
            ledger = scene.end()
    fifth = max(1, swaps // 5)
    return {
        "swaps": swaps,
        "swap_s": spread(swap_s),
        "ledger": ledger,
        "lost": ledger["failed"] - ledger.get("failed.deactivated", 0),
        "rss_growth": min(rss[-fifth:]) / min(rss[fifth : 2 * fifth]),
        "rss_mb": [round(value / 1e6, 1) for value in rss],
    }


def _bundles(folder: Path) -> tuple[Path, Path, Path]:
    names = ("first", "second", "damaged")
    for name in names:
        shutil.copytree(bundles_dir() / MODEL, folder / name)
    graph = folder / "damaged" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    return tuple(folder / name for name in names)  # type: ignore[return-value]


def _set_model(scene: Scene, folder: Path) -> None:
    answer = scene.robot.set("detector", model=str(folder))
    if not answer.successful:
        raise SystemExit(f"expected the parameter to be taken: {json.dumps(answer.reason)}")


def _rows(result: dict[str, Any]) -> list[Row]:
    swaps = result["swaps"]
    rows = []
    for name in ("takeover_dies_s", "takeover_hangs_s"):
        found = result[name]
        note = f"the longest of {found['n']}; p50 {found['p50']:.2f}"
        rows.append(at_most(name, found["max"], TAKEOVER_S, "s", note))
    return [
        *rows,
        Row("swap_s", swaps["swap_s"]["p50"], "s", note=f"p95 {swaps['swap_s']['p95']:.2f}"),
        at_most("swaps_lost", swaps["lost"], 0, "", f"of {swaps['ledger']['received']} frames"),
        at_most("swaps_rss_growth", swaps["rss_growth"], GROWTH, "", f"{swaps['swaps']} swaps"),
    ]


if __name__ == "__main__":
    sys.exit(main())
