"""One cell of `make bench-backends`: a process with one graph on one backend, controlled over stdin.

run N    N pairs of a run through our session and one of the bare runtime, in turns: their milliseconds
detect   the detections on the frames of a video
end      stop
Each answer is one line of JSON; the first, before any command, describes what was loaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
import numpy as np
import psutil
from parts.backends.models import frames
from parts.common import interleaved_ms

from edge_vision.backends.base import BackendRequest, Session
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.core.model_spec import InputSpec
from edge_vision.core.preprocess import Preprocessor

DETECT_FRAMES = 33


def main() -> int:
    order = json.loads(sys.argv[1])
    cv2.setNumThreads(1)
    bundle = load_bundle(order["bundle"]) if order["bundle"] else None
    spec = bundle.manifest.input if bundle else InputSpec(**order["input"])
    video = Path(order["video"])
    feed = {spec.name: Preprocessor(spec).prepare(frames(video, 3)[1])[0]}
    started_s = time.perf_counter()
    session = open_cell(order)
    session.run(feed)
    load_s = time.perf_counter() - started_s
    answer(
        {
            "load_s": load_s,
            "rss_mb": psutil.Process().memory_info().rss / 1e6,
            "precision": session.actual.precision,
            "threads": session.actual.threads,
            "version": session.actual.version,
        }
    )
    wrapped, bare = (lambda: session.run(feed)), bare_run(session, feed)
    for line in sys.stdin:
        command, *words = line.split()
        if command == "end":
            break
        if command == "run":
            ours, theirs = interleaved_ms(wrapped, bare or (lambda: None), int(words[0]))
            answer({"wrapped_ms": ours, "bare_ms": theirs if bare else []})
        elif command == "detect":
            answer({"found": detect(session, bundle, video) if bundle else None})
    return 0


def answer(content: Mapping[str, Any]) -> None:
    print(json.dumps(content), flush=True)


def open_cell(order: Mapping[str, Any]) -> Session:
    """The session; the runtime is imported here and not before."""
    if order["backend"] == "pytorch":
        from parts.backends.eager import EagerSession

        return EagerSession(Path(order["graph"]) if order["bundle"] else order["model"], order["threads"])
    from edge_vision.backends import make_backend

    # The precision that the graph is in is no request; bf16 is one.
    precision = "bf16" if order["precision"] == "bf16" else "auto"
    request = BackendRequest("cpu", precision, order["threads"])
    return make_backend(order["backend"]).load(Path(order["graph"]), request)


def bare_run(session: Session, feed: Mapping[str, np.ndarray]) -> Callable[[], object] | None:
    """The same run by the runtime's own call alone; None for PyTorch, which is not ours to wrap."""
    runtime: Any = getattr(session, "_session", None)
    if runtime is not None:
        names = [output.name for output in session.outputs]
        return lambda: runtime.run(names, feed)
    request: Any = getattr(session, "_request", None)
    if request is not None:
        return lambda: request.infer(feed, share_inputs=True, share_outputs=True)
    interpreter: Any = getattr(session, "_interpreter", None)
    if interpreter is None:
        return None
    inputs = [(one["index"], feed[one["name"]]) for one in interpreter.get_input_details()]
    outputs = [one["index"] for one in interpreter.get_output_details()]

    def run() -> object:
        for index, values in inputs:
            interpreter.set_tensor(index, values)
        interpreter.invoke()
        return [interpreter.get_tensor(index) for index in outputs]

    return run


def detect(session: Session, bundle: Bundle, video: Path) -> list[Any]:
    """Per frame: boxes with classes for a detector, the best class for a classifier."""
    from edge_vision.detect.classifier import Classifier
    from edge_vision.detect.detector import Detector

    shown = frames(video, DETECT_FRAMES)
    if bundle.manifest.task == "classify":
        classifier = Classifier.from_bundle(bundle, session)
        return [int(classifier.classify(frame).scores.argmax()) for frame in shown]
    detector = Detector.from_bundle(bundle, session)
    found = [detector.detect(frame).detections for frame in shown]
    return [[*map(np.ndarray.tolist, (one.xyxy_px, one.scores, one.class_ids))] for one in found]


if __name__ == "__main__":
    sys.exit(main())
