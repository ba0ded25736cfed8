#!/usr/bin/env python3
"""Does it pay to prepare a frame while the one before is inferred? `make bench-pipelining`. Prints a table,
and writes out/bench/pipelining.json.

A camera's frames (vtest.avi, at 30 Hz and faster than the detector) go through two loops in turns:

in turn     prepare, infer, read the outputs, and only then take the newest frame: as the detector's node does
pipelined   a second thread takes the newest frame and prepares it while the one before is inferred

age is from a frame's arrival to its boxes, the figure that a robot feels; rate is frames per second. Where
the camera is faster than the detector, a frame that is prepared early waits, while a newer one comes.
"""

from __future__ import annotations

import argparse
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from parts.common import REPO, Row, spread, table

from edge_vision.backends import BackendRequest, open_session
from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.core.frame import Frame
from edge_vision.core.preprocess import Preprocessor
from edge_vision.detect.heads import make_head
from edge_vision.offline.provenance import hash_of, machine, versions, write_json
from edge_vision.source.capture import Capture

BUNDLE = "nanodet"
CAMERAS_HZ = (30.0, 200.0)
"""Slower than the detector, and faster."""


class Camera:
    """Frames at a rate; `newest` waits for one that came since."""

    def __init__(self, frames: list[np.ndarray], rate_hz: float) -> None:
        self._frames, self._period_s = frames, 1.0 / rate_hz
        self._begun_s, self._taken = time.perf_counter(), -1

    def newest(self) -> tuple[np.ndarray, float]:
        """The newest frame, and when it arrived."""
        at = int((time.perf_counter() - self._begun_s) / self._period_s)
        at = max(at, self._taken + 1)
        self._taken = at
        arrived_s = self._begun_s + at * self._period_s
        time.sleep(max(0.0, arrived_s - time.perf_counter()))
        return self._frames[at % len(self._frames)], arrived_s


@dataclass(frozen=True, slots=True)
class Parts:
    """The three steps of an inference, each with its own buffers."""

    prepare: Callable[[np.ndarray], np.ndarray]
    infer: Callable[[np.ndarray], dict[str, np.ndarray]]
    read: Callable[[dict[str, np.ndarray]], object]


def main() -> int:
    options = _parser().parse_args()
    bundle = load_bundle(BUNDLE)
    session, report = open_session(
        bundle, options.backend, BackendRequest(threads=options.threads), strict=True
    )
    spec, thresholds = bundle.manifest.input, bundle.manifest.thresholds
    head = make_head(bundle.manifest.head, spec, session.outputs, len(bundle.labels))

    def parts() -> Parts:
        preprocessor = Preprocessor(spec)
        return Parts(
            lambda image: preprocessor.prepare(Frame(image, 0, "camera"))[0],
            lambda tensor: session.run({spec.name: tensor}),
            lambda outputs: head.decode(outputs, thresholds),
        )

    frames, path = _frames(60)
    loops = {"in turn": in_turn, "pipelined": pipelined}
    ages: dict[tuple[str, float], list[float]] = {}
    counts: dict[tuple[str, float], list[float]] = {}
    for turn in range(options.rounds):
        print(f"round {turn + 1} of {options.rounds} ...", file=sys.stderr)
        for rate_hz in CAMERAS_HZ:
            for name in list(loops)[:: 1 if turn % 2 else -1]:
                found = loops[name](Camera(frames, rate_hz), (parts(), parts()), options.seconds)
                ages.setdefault((name, rate_hz), []).extend(found)
                counts.setdefault((name, rate_hz), []).append(len(found) / options.seconds)
    session.close()
    rows: list[Row] = []
    results: list[dict[str, Any]] = []
    for (name, rate_hz), found in ages.items():
        age, rate = spread(found), float(np.median(counts[name, rate_hz]))
        results.append({"loop": name, "camera_hz": rate_hz, "age_ms": age, "rate_hz": rate})
        rows.append(Row(f"camera {rate_hz:g} Hz, {name}: age p50", age["p50"], "ms", note=f"{rate:.1f} Hz"))
    for rate_hz in CAMERAS_HZ:
        ratio = np.median(ages["pipelined", rate_hz]) / np.median(ages["in turn", rate_hz])
        results.append({"camera_hz": rate_hz, "age_ratio": float(ratio)})
        rows.append(
            Row(f"camera {rate_hz:g} Hz: age, pipelined over in turn", float(ratio), "", note="below 1 pays")
        )
    print(table(rows))
    result: dict[str, Any] = {"machine": machine(), "versions": versions(), "rows": results}
    result |= {"hashes": {"video": hash_of(path), "model": bundle.sha256}, "backend": str(report.actual)}
    write_json(options.out, result)
    print(options.out)
    return 0


def in_turn(camera: Camera, parts: tuple[Parts, Parts], seconds: float) -> list[float]:
    """Ages in ms."""
    mine, ages = parts[0], []
    until_s = time.perf_counter() + seconds
    while time.perf_counter() < until_s:
        image, arrived_s = camera.newest()
        mine.read(mine.infer(mine.prepare(image)))
        ages.append((time.perf_counter() - arrived_s) * 1e3)
    return ages


def pipelined(camera: Camera, parts: tuple[Parts, Parts], seconds: float) -> list[float]:
    """Ages in ms. Two tensors go round: one is inferred, one is filled."""
    until_s, ages = time.perf_counter() + seconds, []
    ready: queue.Queue[tuple[Parts, np.ndarray, float] | None] = queue.Queue()
    free: queue.Queue[Parts] = queue.Queue()
    for one in parts:
        free.put(one)

    def prepare() -> None:
        while time.perf_counter() < until_s:
            mine = free.get()
            image, arrived_s = camera.newest()
            ready.put((mine, mine.prepare(image), arrived_s))
        ready.put(None)

    thread = threading.Thread(target=prepare)
    thread.start()
    while (item := ready.get()) is not None:
        mine, tensor, arrived_s = item
        mine.read(mine.infer(tensor))
        ages.append((time.perf_counter() - arrived_s) * 1e3)
        free.put(mine)
    thread.join()
    return ages


def _frames(n: int) -> tuple[list[np.ndarray], Path]:
    path = cache_dir() / "video" / "vtest.avi"
    if not path.is_file():
        sys.exit(f"expected a video at {path}: run `make setup`, which fetches one")
    capture = Capture(str(path))
    try:
        found = [image for image in (capture.read() for _ in range(n)) if image is not None]
    finally:
        capture.close()
    return found, path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backend", default="onnxruntime")
    parser.add_argument("--threads", type=int, default=0, help="of the runtime; 0 = as the backend chooses")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each loop in each round")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "pipelining.json")
    return parser


if __name__ == "__main__":
    sys.exit(main())
