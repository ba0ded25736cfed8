#!/usr/bin/env python3
"""Measures the gate: `make bench-gate`. Prints a table, and writes out/bench/gate.json.

All on one OpenCV thread, 1280x720 bgr8 at 30 fps unless stated, with the clock of the frames. Frames
are made of a real clip, each with noise of its own (standard deviation 3, as of a camera indoors).

static        `FrameGate.decide` for a camera that stands: a clip of walkers, enlarged, at its own rate.
still         the same without the walkers: one picture of the clip, only the noise is new.
panning       a camera that pans over one enlarged picture, 3.3 pixels right and 0.7 down per frame.
small_gray    the share that computes the small luma image; the remainder is the gate's own work.
jpeg_ratio    `decide` for a 1920x1080 JPEG (quality 90) over its full decode, pair by pair, the median.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from parts.benchmark import finish, make_parser, new_result
from parts.common import Row, at_most, median_ratio, spread

from edge_vision.core.compressed import compressed_frame
from edge_vision.core.frame import Frame
from edge_vision.gate.frame_gate import FrameGate

SIZE, JPEG_SIZE = (1280, 720), (1920, 1080)
NOISE_SD = 3.0
FPS_HZ = 30.0
# The first frames are not typical: caches are cold.
WARM_UP = 30
STATIC_MS, PANNING_MS, JPEG_RATIO = 0.3, 1.2, 0.25
_EXAMPLES = """examples:
  python bench/gate.py               about half a minute
  python bench/gate.py --quick       noisier
  python bench/gate.py --strict      exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    cv2.setNumThreads(1)
    frames = 120 if options.quick else 600
    result = new_result(options.video)
    result |= {"quick": options.quick, "threads": cv2.getNumThreads(), "size": SIZE, "noise_sd": NOISE_SD}
    result["conditions"] = {}
    for name, make in CONDITIONS.items():
        fps_hz = _fps_hz(options.video) if name == "static" else FPS_HZ
        result["conditions"][name] = decide_ms(make(options.video), frames, fps_hz)
    result["jpeg"] = jpeg(options.video, frames // 4)
    return finish(options, result, _rows(result))


def _parser() -> argparse.ArgumentParser:
    parser = make_parser("gate", __doc__, _EXAMPLES)
    parser.add_argument("--quick", action="store_true", help="a fifth of the frames")
    return parser


class Noise:
    """Images with individual sensor noise: each uses another part of one noise field."""

    def __init__(self, width_px: int, height_px: int) -> None:
        self._rng = np.random.default_rng(0)
        self._field = self._rng.normal(0, NOISE_SD, (height_px + 64, width_px + 64, 3)).astype(np.int8)

    def on(self, picture: np.ndarray) -> np.ndarray:
        """A new (h, w, 3) uint8."""
        height, width = picture.shape[:2]
        top, left = self._rng.integers(0, 64, 2)
        noise = self._field[top : top + height, left : left + width]
        return cv2.add(picture, noise, dtype=cv2.CV_8U)


def _fps_hz(video: Path) -> float:
    return float(cv2.VideoCapture(str(video)).get(cv2.CAP_PROP_FPS)) or FPS_HZ


def _pictures(video: Path, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """The clip, enlarged, again and again."""
    while True:
        capture = cv2.VideoCapture(str(video))
        shown = 0
        while (read := capture.read())[0]:
            shown += 1
            yield cv2.resize(read[1], size, interpolation=cv2.INTER_CUBIC)
        capture.release()
        if shown == 0:
            raise SystemExit(f"expected a video in {video}, OpenCV reads none")


def static(video: Path) -> Iterator[np.ndarray]:
    """a camera that stands, people walk"""
    noise = Noise(*SIZE)
    for picture in _pictures(video, SIZE):
        yield noise.on(picture)


def still(video: Path) -> Iterator[np.ndarray]:
    """a camera that stands, nothing moves"""
    noise, picture = Noise(*SIZE), next(_pictures(video, SIZE))
    while True:
        yield noise.on(picture)


def panning(video: Path) -> Iterator[np.ndarray]:
    """a camera that pans over a still scene"""
    noise, scene = Noise(*SIZE), next(_pictures(video, (SIZE[0] * 3, SIZE[1] * 3)))
    at = np.array([10.0, 10.0])
    step, end = np.array([3.3, 0.7]), np.array(scene.shape[1::-1]) - SIZE - 10.0
    while True:
        yield noise.on(_seen_from(scene, at))
        # Back and forth: each edge turns it round.
        step = np.where((at + step < 10) | (at + step > end), -step, step)
        at = at + step


def _seen_from(scene: np.ndarray, at: np.ndarray) -> np.ndarray:
    """The part of the scene whose left upper corner is at this place, which may be between pixels."""
    shift = np.array([[1, 0, at[0]], [0, 1, at[1]]])
    return cv2.warpAffine(scene, shift, SIZE, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


CONDITIONS: dict[str, Callable[[Path], Iterator[np.ndarray]]] = {
    "static": static,
    "still": still,
    "panning": panning,
}


class TimedFrame(Frame):
    """A frame that notes how long its small luma took."""

    gray_ms = 0.0

    def small_gray(self, width_px: int) -> np.ndarray:
        started_s = time.perf_counter()
        gray = super().small_gray(width_px)
        TimedFrame.gray_ms = (time.perf_counter() - started_s) * 1e3
        return gray


def decide_ms(pictures: Iterator[np.ndarray], frames: int, fps_hz: float) -> dict[str, Any]:
    """Wall and CPU time of `decide`, frame by frame, and what it decided."""
    gate, reasons = FrameGate(seed=0), Counter[str]()
    wall_ms: list[float] = []
    cpu_ms: list[float] = []
    gray_ms: list[float] = []
    for i in range(WARM_UP + frames):
        stamp_ns = round((i + 1) * 1e9 / fps_hz)
        frame = TimedFrame(next(pictures), stamp_ns, "camera")
        started_s, started_cpu_ns = time.perf_counter(), time.thread_time_ns()
        decision = gate.decide(frame, stamp_ns)
        cpu_ns, taken_s = time.thread_time_ns() - started_cpu_ns, time.perf_counter() - started_s
        if i >= WARM_UP:
            wall_ms.append(taken_s * 1e3)
            cpu_ms.append(cpu_ns / 1e6)
            gray_ms.append(TimedFrame.gray_ms)
            reasons[decision.reason] += 1
    return {
        "decide_ms": spread(wall_ms),
        "decide_cpu_ms": spread(cpu_ms),
        "small_gray_ms": spread(gray_ms),
        "decisions": dict(reasons.most_common()),
    }


def jpeg(video: Path, frames: int) -> dict[str, Any]:
    """A JPEG through the gate, the same one decoded in full, and only its small luma, in turns."""
    gate, noise, picture = FrameGate(seed=0), Noise(*JPEG_SIZE), next(_pictures(video, JPEG_SIZE))
    taken: dict[str, list[float]] = {"gated_ms": [], "full_decode_ms": [], "small_gray_ms": []}
    sizes: list[int] = []
    for i in range(WARM_UP + frames):
        data = cv2.imencode(".jpg", noise.on(picture), [cv2.IMWRITE_JPEG_QUALITY, 90])[1]
        one = _jpeg_ms(gate, data, round((i + 1) * 1e9 / FPS_HZ), gate_first=i % 2 == 0)
        if i >= WARM_UP:
            sizes.append(data.size)
            for name, ms in one.items():
                taken[name].append(ms)
    result: dict[str, Any] = {name: spread(values) for name, values in taken.items()}
    result["ratio"] = median_ratio(taken["gated_ms"], taken["full_decode_ms"])
    return result | {"bytes": spread(sizes)}


def _jpeg_ms(gate: FrameGate, data: np.ndarray, stamp_ns: int, gate_first: bool) -> dict[str, float]:
    """Milliseconds from the bytes on."""

    def frame() -> Frame:
        return compressed_frame(data, "jpeg", stamp_ns, "camera")

    ways: dict[str, Callable[[], object]] = {
        "gated_ms": lambda: gate.decide(frame(), stamp_ns),
        "small_gray_ms": lambda: frame().small_gray(gate.config.luma_width_px),
        "full_decode_ms": lambda: compressed_frame(data, "jpeg", 0, "").bgr(),
    }
    times: dict[str, float] = {}
    for name in ways if gate_first else reversed(ways):
        started_s = time.perf_counter()
        ways[name]()
        times[name] = (time.perf_counter() - started_s) * 1e3
    return times


def _rows(result: dict[str, Any]) -> list[Row]:
    limits = {"static": STATIC_MS, "still": STATIC_MS, "panning": PANNING_MS}
    rows: list[Row] = []
    for name, one in result["conditions"].items():
        wall, gray = one["decide_ms"], one["small_gray_ms"]
        note = f"p95 {wall['p95']:.2f}, CPU {one['decide_cpu_ms']['p50']:.2f}; {_listed(one['decisions'])}"
        rows.append(at_most(f"{name}, decide p50", wall["p50"], limits[name], "ms", note))
        rows.append(Row("  small_gray", gray["p50"], "ms", note=f"{gray['p50'] / wall['p50']:.0%}"))
    one = result["jpeg"]
    note = f"gated {one['gated_ms']['p50']:.1f} ms (small luma {one['small_gray_ms']['p50']:.1f}), "
    note += f"decoded {one['full_decode_ms']['p50']:.1f} ms, {one['bytes']['p50'] / 1e3:.0f} KB"
    return [*rows, at_most("jpeg_ratio 1080p", one["ratio"], JPEG_RATIO, "", note)]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items())


if __name__ == "__main__":
    sys.exit(main())
