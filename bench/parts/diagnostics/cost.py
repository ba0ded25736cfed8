"""A pipeline in this process, with or without diagnostics, that plays on command. bench/diagnostics.py starts
it and writes one line per command: `start`, `stop`, and finally `end`.

python bench/parts/diagnostics/cost.py --video clip.avi --namespace with
python bench/parts/diagnostics/cost.py --video clip.avi --namespace without --no-diagnostics
"""

from __future__ import annotations

import argparse
import json
import select
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import parts.common  # noqa: F401  (the path of this repository)
import rclpy
from rclpy.signals import SignalHandlerOptions

from edge_vision.nodes import run
from edge_vision.nodes.diagnostics_node import DiagnosticsNode
from edge_vision.nodes.pipeline import PIPELINE
from edge_vision.nodes.transport.intra_process import IntraProcess


class Counted(DiagnosticsNode):
    """Counts the CPU time of the executor's thread in the node's own callbacks, publishing included."""

    spent_s = 0.0
    _counting = False

    def publish_status(self) -> None:
        self._count(super().publish_status)

    def _update_cause(self) -> None:
        self._count(super()._update_cause)

    def _receive(self, name: str, message: Any) -> None:
        self._count(lambda: super(Counted, self)._receive(name, message))

    def _count(self, work: Callable[[], None]) -> None:
        if self._counting:  # A callback that another one calls.
            work()
            return
        self._counting, began_s = True, time.thread_time()
        try:
            work()
        finally:
            self._counting = False
            Counted.spent_s += time.thread_time() - began_s


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--namespace", required=True)
    parser.add_argument("--no-diagnostics", action="store_true")
    parser.add_argument("--profile", type=Path, help="write a profile of the last turn there (pstats)")
    options = parser.parse_args()
    cv2.setNumThreads(1)  # As the executables do.
    args = ["cost", "--ros-args", "-r", f"__ns:=/{options.namespace}"]
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    kinds = [kind for kind in PIPELINE if kind is not DiagnosticsNode]
    if not options.no_diagnostics:
        kinds.append(Counted)
    hub, executor = IntraProcess(), run.make_executor()
    given = {
        "source": {"uri": str(options.video), "loop": True, "autostart": False},
        "gate": {"enabled": False},  # Each image is inferred: both do the same work.
        "detector": {"backend": "onnxruntime"},
    }
    nodes = [kind(hub, given.get(kind.spec.name, {})) for kind in kinds]
    try:
        for node in nodes:
            executor.add_node(node)
        for node in reversed(nodes):
            node.trigger_configure()
            if node is not nodes[0]:
                node.bring_up()
        print("ready", flush=True)
        _turns(executor, nodes[0], options.profile)
    finally:
        run.end(nodes)
        executor.shutdown(0)
        rclpy.try_shutdown()
    return 0


def _turns(executor: Any, source: Any, profile: Path | None) -> None:
    """Spin as the executables do, and poll for a command in between."""
    begun = (0.0, 0.0, 0.0)
    profiler: Any = None
    while True:
        executor.spin_once(timeout_sec=run.SPIN_S)
        if not select.select([sys.stdin], [], [], 0)[0]:
            continue
        line = sys.stdin.readline().strip()
        if line == "start":
            source.trigger_activate()
            if profile:
                import cProfile

                profiler = cProfile.Profile()
                profiler.enable()
            begun = (time.process_time(), Counted.spent_s, time.monotonic())
        elif line == "stop":
            now = (time.process_time(), Counted.spent_s, time.monotonic())
            if profiler:
                profiler.disable()
                profiler.dump_stats(str(profile))
            source.trigger_deactivate()
            cpu_s, spent_s, wall_s = (b - a for a, b in zip(begun, now, strict=True))
            print(json.dumps({"cpu_s": cpu_s, "diagnostics_s": spent_s, "wall_s": wall_s}), flush=True)
        else:  # "end", or the parent is gone.
            return


if __name__ == "__main__":
    sys.exit(main())
