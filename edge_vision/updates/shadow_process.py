"""Runs the new model beside the one that serves, in a child process of the lowest priority with one thread.

    python -m edge_vision.updates.shadow_process BUNDLE BACKEND PARENT_PID

Each job on stdin is a JSON line and the bytes of an image; each answer is a JSON line. A model that crashes
or hangs ends the child only.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.base import BackendRequest
from edge_vision.core.child_process import child_environment, describe_exit, end_with_parent, python_command
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.errors import EdgeVisionError
from edge_vision.updates.shadow import ShadowFrame, compare

LOAD_LIMIT_S = 300.0
RUN_LIMIT_S = 30.0


@dataclass(frozen=True, slots=True)
class ShadowJob:
    """A frame, and what the present model found on it."""

    frame: Frame
    found: Detections
    labels: tuple[str, ...]
    threshold: float


class ShadowProcess:
    """A running child, for one job at a time. failure: why it ended, "" while it works."""

    def __init__(self, bundle: str, backend: str) -> None:
        self.failure = ""
        self._answers: list[ShadowFrame] = []
        self._job: ShadowJob | None = None
        self._wake = threading.Event()
        self._stopped = False
        self._child = subprocess.Popen(
            python_command("edge_vision.updates.shadow_process", bundle, backend, str(os.getpid())),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=child_environment(),
        )
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether it takes a job."""
        return self._job is None and not self.failure

    def submit(self, job: ShadowJob) -> None:
        """Start a job; `take` returns its result."""
        self._job = job
        self._wake.set()

    def take(self) -> ShadowFrame | None:
        """The next result, None if there is none."""
        return self._answers.pop(0) if self._answers else None

    def stop(self) -> None:
        """End the child."""
        self._stopped = True
        self._child.kill()
        self._wake.set()
        self._thread.join()

    def _work(self) -> None:
        limit_s = LOAD_LIMIT_S
        try:
            while not self._stopped:
                self._wake.wait()
                self._wake.clear()
                if self._job is not None:
                    self._answers.append(self._run(self._job, limit_s))
                    self._job, limit_s = None, RUN_LIMIT_S
        except (OSError, ValueError, KeyError, TypeError, TimeoutError) as error:
            self._child.kill()
            ended = f"its process {describe_exit(self._child.wait())}"
            how = str(error) if isinstance(error, TimeoutError) else ended
            self.failure = f"the new model cannot be compared: {how}"
        finally:
            self._child.kill()
            self._child.wait()

    def _run(self, job: ShadowJob, limit_s: float) -> ShadowFrame:
        stdin, stdout = self._child.stdin, self._child.stdout
        assert stdin is not None and stdout is not None
        image = np.ascontiguousarray(job.frame.bgr())
        head = {
            "shape": image.shape,
            "xyxy_px": job.found.xyxy_px.tolist(),
            "scores": job.found.scores.tolist(),
            "class_ids": job.found.class_ids.tolist(),
            "labels": job.labels,
            "threshold": job.threshold,
        }
        stdin.write(json.dumps(head).encode() + b"\n" + image.tobytes())
        stdin.flush()
        if not select.select([stdout], [], [], limit_s)[0]:
            raise TimeoutError(f"it did not answer within {limit_s:.0f} s")
        answer = json.loads(stdout.readline())
        if "error" in answer:
            raise TimeoutError(answer["error"])
        return ShadowFrame(**answer)


def main(argv: Sequence[str] | None = None) -> int:
    """Load the bundle, then answer jobs until the end of stdin."""
    bundle, backend, parent = sys.argv[1:] if argv is None else argv
    end_with_parent(int(parent))
    os.nice(19)
    # Out of memory, the kernel kills this process before the one that serves.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    try:
        detector, labels = _loaded(bundle, backend)
        while line := sys.stdin.buffer.readline():
            print(json.dumps(asdict(_answer(json.loads(line), detector, labels))), flush=True)
    except EdgeVisionError as error:
        print(json.dumps({"error": str(error)}), flush=True)
        return 1
    return 0


def _loaded(bundle: str, backend: str) -> tuple[Any, tuple[str, ...]]:
    from edge_vision.backends.serving.loaded_model import ModelRequest, load_model
    from edge_vision.detect.detector import Detector

    request = ModelRequest(bundle, backend, BackendRequest(threads=1))
    model = load_model(request, Detector.from_bundle)
    return model.runner, model.bundle.labels


def _answer(job: dict[str, Any], detector: Any, labels: tuple[str, ...]) -> ShadowFrame:
    height, width, channels = job["shape"]
    data = sys.stdin.buffer.read(height * width * channels)
    image = np.frombuffer(data, np.uint8).reshape(height, width, channels)
    old = Detections(
        np.array(job["xyxy_px"], np.float32).reshape(-1, 4),
        np.array(job["scores"], np.float32),
        np.array(job["class_ids"], np.int32),
    )
    found = detector.detect(Frame(image, 0, "", "bgr8")).detections
    return compare(old, job["labels"], found, labels, job["threshold"])


if __name__ == "__main__":
    raise SystemExit(main())
