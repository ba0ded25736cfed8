"""Where the CPU time of a frame goes in the running pipeline. Started by bench/pipeline.py and headline.py.

python bench/parts/pipeline/cpu_shares.py --video clip.avi --preset balanced --seconds 30
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import parts.common  # noqa: F401  (the path of this repository)

SHARES = ("decode", "messages", "gate", "cascade", "detector", "tracks", "status", "rest")
WARM_UP_S = 3.0
MAX_START_S = 30.0


class CpuShares:
    """Charges the CPU time of each thread to the innermost of the functions that are watched."""

    def __init__(self) -> None:
        self._spent_s: dict[tuple[int, str], float] = defaultdict(float)
        self._thread = threading.local()
        self._pool: set[str] = set()

    def watch(self, owner: type, name: str, share: str) -> None:
        """Charge the time within this method."""
        setattr(owner, name, self._charged(getattr(owner, name), share))

    def watch_pool(self, owner: type, name: str) -> None:
        """Charge the threads that this method starts to the detector: those of the runtime."""
        method = getattr(owner, name)

        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            before = set(os.listdir("/proc/self/task"))
            result = method(*args, **kwargs)
            self._pool |= set(os.listdir("/proc/self/task")) - before
            return result

        setattr(owner, name, call)

    def _charged(self, method: Callable[..., Any], share: str) -> Callable[..., Any]:
        @wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            outer = getattr(self._thread, "share", "")
            self._switch(share)
            try:
                return method(*args, **kwargs)
            finally:
                self._switch(outer)

        return call

    def _switch(self, share: str) -> None:
        thread, now_s = self._thread, time.thread_time()
        if before := getattr(thread, "share", ""):
            self._spent_s[threading.get_ident(), before] += now_s - thread.since_s
        thread.share, thread.since_s = share, now_s

    def read_s(self) -> dict[str, float]:
        """CPU seconds of the process so far by share."""
        found = dict.fromkeys(SHARES, 0.0)
        for (_, share), spent_s in list(self._spent_s.items()):
            found[share] += spent_s
        found["detector"] += sum(map(_thread_s, self._pool))
        found["rest"] = time.process_time() - sum(found.values())
        return found


def _thread_s(task: str) -> float:
    try:
        return int(Path(f"/proc/self/task/{task}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return 0.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument(
        "--preset", default="", help="a preset of the gate (default: every frame is inferred)"
    )
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument(
        "--parameters", type=json.loads, default={}, help="JSON, by node: beside those of the preset"
    )
    print("RESULT " + json.dumps(measure(parser.parse_args())))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """CPU time per frame in ms, by share and in total; `inferred`, `superseded`: shares of the frames."""
    import cv2
    import rclpy
    from rclpy.signals import SignalHandlerOptions

    from edge_vision.cascade.cascade import Cascade
    from edge_vision.detect.detector import Detector
    from edge_vision.gate.frame_gate import FrameGate
    from edge_vision.nodes import run
    from edge_vision.nodes.base_node import BaseNode
    from edge_vision.nodes.detector.model import DetectorModel
    from edge_vision.nodes.detector.output import DetectionOutput
    from edge_vision.nodes.detector.track_publisher import TrackPublisher
    from edge_vision.nodes.diagnostics_node import DiagnosticsNode
    from edge_vision.nodes.pipeline import PIPELINE
    from edge_vision.nodes.transport.lazy_publisher import LazyPublisher
    from edge_vision.source.capture import Capture

    shares = CpuShares()
    for owner, names, share in (
        (Capture, ("grab", "frame"), "decode"),
        (LazyPublisher, ("publish", "try_publish"), "messages"),
        (DetectionOutput, ("publish_detections",), "messages"),
        (FrameGate, ("decide",), "gate"),
        (Cascade, ("decide",), "cascade"),
        (Detector, ("detect",), "detector"),
        (TrackPublisher, ("add_frame", "add_event", "assign_ids"), "tracks"),
        (BaseNode, ("publish_status",), "status"),
        (DiagnosticsNode, ("_receive", "_update_cause", "publish_status"), "status"),
    ):
        for name in names:
            shares.watch(owner, name, share)
    shares.watch_pool(DetectorModel, "start")
    cv2.setNumThreads(1)  # As the executables do.
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    nodes: list[BaseNode] = []
    result: dict[str, Any] = {}
    stop = threading.Event()

    def observe() -> None:
        try:
            ledger = _ledger(nodes)
            time.sleep(WARM_UP_S)
            before, begun = ledger(), shares.read_s()
            time.sleep(options.seconds)
            after, ended = ledger(), shares.read_s()
            frames = after.received - before.received
            inferred, superseded = (
                after.fates.get(fate, 0) - before.fates.get(fate, 0) for fate in ("inferred", "superseded")
            )
            result.update({name: (ended[name] - begun[name]) * 1e3 / frames for name in SHARES})
            result["total"] = sum(result[name] for name in SHARES)
            result.update(frames=frames, inferred=inferred / frames, superseded=superseded / frames)
        finally:
            stop.set()

    overrides: dict[str, dict[str, Any]] = {
        "source": {"uri": str(options.video), "loop": True},
        "detector": {"backend": "onnxruntime", "publish_tracks": bool(options.preset)},
        "gate": {"preset": options.preset} if options.preset else {"enabled": False},
    }
    for node, values in options.parameters.items():
        overrides[node] = {**overrides.get(node, {}), **values}

    def kept(kind: type[BaseNode]) -> Any:
        def make(*args: Any) -> BaseNode:
            nodes.append(kind(*args))
            return nodes[-1]

        make.spec = kind.spec  # type: ignore[attr-defined]
        return make

    threading.Thread(target=observe, daemon=True).start()
    try:
        run.run([kept(kind) for kind in PIPELINE], overrides, stop)
    finally:
        rclpy.try_shutdown()
    return result


def _ledger(nodes: list[Any]) -> Callable[[], Any]:
    """The ledger's snapshot, once frames arrive."""
    limit_s = time.monotonic() + MAX_START_S
    while time.monotonic() < limit_s:
        if nodes and nodes[0].hub.ledger.snapshot().received:
            return nodes[0].hub.ledger.snapshot
        time.sleep(0.05)
    raise RuntimeError(f"no frame after {MAX_START_S:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
