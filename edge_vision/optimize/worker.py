"""One candidate in a fresh process: `python -m edge_vision.optimize.worker`. Reads orders, one JSON a line.

    load    open the bundle and look at the first picture   -> what really runs
    time    look at pictures, n times                       -> ms of each look, its inference, its CPU
    rss     -> peak memory so far
    judge   look at all pictures of a folder, write what was found (.npz); with a score threshold, from now on
            with that one
    raw     run the graph on tensors of a .npz, write its outputs

`WorkerProcess` is the other end of it.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.errors import BackendError, EdgeVisionError


class WorkerProcess:
    """A worker process and what it answers. cold_start_s: from its start to the first result."""

    def __init__(self, name: str, load: dict[str, Any]) -> None:
        """load: see `_Looker`. Raises BackendError where it cannot be loaded."""
        self._name = name
        started = time.monotonic()
        self._child = subprocess.Popen(
            python_command("edge_vision.optimize.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
        )
        try:
            self.actual = self.ask("load", **load)
        except BaseException:
            self.close()
            raise
        self.cold_start_s = time.monotonic() - started

    def ask(self, order: str, **values: Any) -> Any:
        """Give an order and wait for the answer. Raises BackendError where it fails or the process ends."""
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps({"order": order, **values}).encode() + b"\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise BackendError(
                f"{self._name}: its process {describe_exit(self._exit())} while it was to {order}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise BackendError(answer["error"])
        return answer["value"]

    def _exit(self) -> int:
        try:
            return self._child.wait(5.0)
        except subprocess.TimeoutExpired:
            return 0

    def close(self) -> None:
        """End the process."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Looker:
    """The orders. bundle: folder; pictures: folder with PNG files of which a few are timed."""

    def load(
        self, bundle: str, backend: str, precision: str, threads: int, pictures: str, timed: int
    ) -> dict[str, Any]:
        import cv2

        from edge_vision.backends import load_on
        from edge_vision.backends.base import BackendRequest
        from edge_vision.bundles.store import load_bundle
        from edge_vision.core.frame import Frame
        from edge_vision.detect.classifier import Classifier
        from edge_vision.detect.detector import Detector

        cv2.setNumThreads(1)
        opened = load_bundle(f"{bundle}{os.sep}")
        request = BackendRequest(precision=precision, threads=threads)
        # Without a trial: this process is one.
        self._session = load_on(opened, backend, request, trial=False)
        self._detector = self._classifier = None
        if opened.manifest.task == "detect":
            self._detector = Detector.from_bundle(opened, self._session)
        else:
            self._classifier = Classifier.from_bundle(opened, self._session)
        files = sorted(Path(pictures).glob("*.png"))[
            :: max(1, len(list(Path(pictures).glob("*.png"))) // timed)
        ]
        self._timed = [Frame(cv2.imread(str(file)), 0, "", "bgr8") for file in files[:timed]]
        self._at = 0
        self._look(self._timed[0])
        actual = self._session.actual
        return {name: getattr(actual, name) for name in actual.__dataclass_fields__}

    def time(self, n: int) -> list[tuple[float, float, float]]:
        times = []
        for _ in range(n):
            frame = self._timed[self._at % len(self._timed)]
            self._at += 1
            started, spent = time.perf_counter(), time.process_time()
            timing = self._look(frame)
            look_ms, cpu_ms = (time.perf_counter() - started) * 1e3, (time.process_time() - spent) * 1e3
            times.append((look_ms, timing.inference_ms, cpu_ms))
        return times

    def rss(self) -> float:
        return peak_rss_mb()

    def judge(self, pictures: str, out: str, score_threshold: float | None = None) -> int:
        import cv2

        from edge_vision.core.frame import Frame

        files = sorted(Path(pictures).glob("*.png"))
        arrays = {}
        if self._detector is not None and score_threshold is not None:
            thresholds = replace(self._detector.thresholds, score_threshold=score_threshold)
            self._detector.thresholds = thresholds
        for number, file in enumerate(files):
            frame = Frame(cv2.imread(str(file)), 0, "", "bgr8")
            if self._detector is not None:
                found = self._detector.detect(frame).detections
                arrays.update(
                    {
                        f"{number}.boxes": found.xyxy_px,
                        f"{number}.scores": found.scores,
                        f"{number}.ids": found.class_ids,
                    }
                )
            else:
                assert self._classifier is not None
                arrays[f"{number}.scores"] = self._classifier.classify(frame).scores
        _write_arrays(out, arrays)
        return len(files)

    def raw(self, tensors: str, out: str) -> int:
        import numpy as np

        arrays = {}
        with np.load(tensors) as inputs:
            for number, key in enumerate(sorted(inputs.files)):
                values = self._session.run({self._session.inputs[0].name: inputs[key]})
                arrays.update({f"{number}.{name}": value.copy() for name, value in values.items()})
        _write_arrays(out, arrays)
        return len(arrays)

    def _look(self, frame: Any) -> Any:
        if self._detector is not None:
            return self._detector.detect(frame).timing
        assert self._classifier is not None
        return self._classifier.classify(frame).timing


def _write_arrays(file: str, arrays: dict[str, Any]) -> None:
    import numpy as np

    np.savez(file, **arrays)


def peak_rss_mb() -> float:
    """The most memory that this process held since it was started, in MB (2^20 bytes)."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024.0
    except (OSError, StopIteration):
        # In kilobytes on Linux; it counts what the process was before it became Python, so the second choice.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def main() -> int:
    """Answer orders until there are no more."""
    # What runtimes print must not come between the answers.
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    looker = _Looker()
    for line in sys.stdin.buffer:
        order = json.loads(line)
        try:
            answer = {"value": getattr(looker, order.pop("order"))(**order)}
        except EdgeVisionError as error:
            answer = {"error": str(error)}
        answers.write(json.dumps(answer).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
