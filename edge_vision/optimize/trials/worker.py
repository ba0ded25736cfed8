"""A candidate in its own process, `python -m edge_vision.optimize.trials.worker`; WorkerProcess: its client.

Requests and responses are JSON, one per line:

    load     open the bundle and run the first image     -> what actually runs
    time     run n images                                -> ms of each pass, of its inference, of its CPU time
    rss      -> peak memory so far, MB
    predict  run all images of a folder, write the predictions (.npz); a score threshold applies from then on
    raw      run the graph on the tensors of a .npz file, write its outputs
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.errors import BackendError, EdgeVisionError


@dataclass(frozen=True, slots=True)
class WorkerSetup:
    """What a worker loads. bundle: folder. images: folder with PNG files, of which `timed` are timed."""

    bundle: str
    backend: str
    precision: str
    threads: int
    images: str
    timed: int = 4


class WorkerProcess:
    """A worker process. actual: BackendActual as a mapping. cold_start_s: from start to the first result."""

    def __init__(self, name: str, setup: WorkerSetup) -> None:
        """Raises BackendError if the bundle cannot be loaded."""
        self._name = name
        started_s = time.monotonic()
        self._child = subprocess.Popen(
            python_command("edge_vision.optimize.trials.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=child_environment(),
        )
        try:
            self.actual: dict[str, Any] = self.request("load", setup=asdict(setup))
        except BaseException:
            self.close()
            raise
        self.cold_start_s = time.monotonic() - started_s

    def request(self, method: str, **arguments: Any) -> Any:
        """The response to a request. Raises BackendError if it fails or the process ends."""
        assert self._child.stdin is not None and self._child.stdout is not None
        try:
            self._child.stdin.write(json.dumps({"method": method, **arguments}).encode() + b"\n")
            self._child.stdin.flush()
            line = self._child.stdout.readline()
        except BrokenPipeError:
            line = b""
        if not line:
            raise BackendError(
                f"{self._name}: its process {describe_exit(self._exit_status())} during {method}"
            )
        response = json.loads(line)
        if "error" in response:
            raise BackendError(response["error"])
        return response["value"]

    def _exit_status(self) -> int:
        try:
            return self._child.wait(5.0)
        except subprocess.TimeoutExpired:
            return 0

    def close(self) -> None:
        """Kill the process."""
        self._child.kill()
        self._child.wait()
        for pipe in (self._child.stdin, self._child.stdout):
            if pipe is not None:
                pipe.close()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker:
    """The methods that a client may request. Imports runtimes in `load`, as part of the cold start."""

    def load(self, setup: Mapping[str, Any]) -> dict[str, Any]:
        import cv2

        from edge_vision.backends import load_on
        from edge_vision.backends.base import BackendRequest
        from edge_vision.bundles.store import load_bundle
        from edge_vision.core.frame import Frame
        from edge_vision.detect.classifier import Classifier
        from edge_vision.detect.detector import Detector

        options = WorkerSetup(**setup)
        cv2.setNumThreads(1)
        bundle = load_bundle(f"{options.bundle}{os.sep}")
        request = BackendRequest(precision=options.precision, threads=options.threads)
        # Without a trial in another child process: this process is one.
        self._session = load_on(bundle, options.backend, request, trial=False)
        self._detector = self._classifier = None
        if bundle.manifest.task == "detect":
            self._detector = Detector.from_bundle(bundle, self._session)
        else:
            self._classifier = Classifier.from_bundle(bundle, self._session)
        files = sorted(Path(options.images).glob("*.png"))
        files = files[:: max(1, len(files) // options.timed)][: options.timed]
        self._frames = [Frame(cv2.imread(str(file)), 0, "", "bgr8") for file in files]
        self._passes = 0
        self._run(self._frames[0])
        return asdict(self._session.actual)

    def time(self, n: int) -> list[tuple[float, float, float]]:
        times = []
        for _ in range(n):
            frame = self._frames[self._passes % len(self._frames)]
            self._passes += 1
            started, cpu_started = time.perf_counter(), time.process_time()
            inference_ms = self._run(frame)
            pass_ms = (time.perf_counter() - started) * 1e3
            times.append((pass_ms, inference_ms, (time.process_time() - cpu_started) * 1e3))
        return times

    def rss(self) -> float:
        return peak_rss_mb()

    def predict(self, images: str, out: str, score_threshold: float | None = None) -> int:
        import cv2

        from edge_vision.core.frame import Frame

        if self._detector is not None and score_threshold is not None:
            thresholds = replace(self._detector.thresholds, score_threshold=score_threshold)
            self._detector.thresholds = thresholds
        files = sorted(Path(images).glob("*.png"))
        arrays = {}
        for number, file in enumerate(files):
            prediction = self._prediction(Frame(cv2.imread(str(file)), 0, "", "bgr8"))
            arrays.update({f"{number}.{name}": values for name, values in prediction.items()})
        _write_arrays(out, arrays)
        return len(files)

    def raw(self, tensors: str, out: str) -> int:
        import numpy as np

        arrays = {}
        with np.load(tensors) as inputs:
            for number, key in enumerate(sorted(inputs.files)):
                outputs = self._session.run({self._session.inputs[0].name: inputs[key]})
                arrays.update({f"{number}.{name}": values.copy() for name, values in outputs.items()})
        _write_arrays(out, arrays)
        return len(arrays)

    def _prediction(self, frame: Any) -> dict[str, Any]:
        if self._detector is not None:
            found = self._detector.detect(frame).detections
            return {"boxes": found.xyxy_px, "scores": found.scores, "ids": found.class_ids}
        assert self._classifier is not None
        return {"scores": self._classifier.classify(frame).scores}

    def _run(self, frame: Any) -> float:
        """Run a frame. Returns the time of the inference alone, ms."""
        if self._detector is not None:
            return self._detector.detect(frame).timing.inference_ms
        assert self._classifier is not None
        return self._classifier.classify(frame).timing.inference_ms


def _write_arrays(file: str, arrays: dict[str, Any]) -> None:
    import numpy as np

    np.savez(file, **arrays)


def peak_rss_mb() -> float:
    """The peak resident memory of this process in MB (2^20 bytes)."""
    try:
        lines = Path("/proc/self/status").read_text("utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024.0
    except (OSError, StopIteration):
        # Kilobytes on Linux. It includes the time before exec, so it is only the fallback.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0


def main() -> int:
    """Serve requests until standard input ends."""
    # Runtimes print to file descriptor 1, which must carry responses only.
    responses = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    worker = _Worker()
    for line in sys.stdin.buffer:
        arguments = json.loads(line)
        try:
            response = {"value": getattr(worker, arguments.pop("method"))(**arguments)}
        except EdgeVisionError as error:
            response = {"error": str(error)}
        responses.write(json.dumps(response).encode() + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
