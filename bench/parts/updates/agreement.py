"""False rejections of shadow: a model compared with itself, on copies that differ as those of two runtimes.

Recorded once: the model's detections on frames of a clip, and on the same frames after JPEG compression. Each
run draws frames from the recording until the sequential test of shadow has a verdict.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import cv2
from parts.common import spread

from edge_vision.backends.base import BackendRequest
from edge_vision.backends.serving.loaded_model import ModelRequest, load_model
from edge_vision.bundles.store import cache_dir
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.updates.shadow import ShadowFrame, ShadowTest, compare

MODEL, CLIP = "ssdlite_mobilenet_v2_coco", "vtest.avi"
FRAMES, EVERY, JPEG_QUALITY = 200, 3, 30


def aa_runs(runs: int, seed: int) -> dict[str, Any]:
    """This many comparisons of a model with itself."""
    recorded, chance = _recorded(), random.Random(seed)
    verdicts, frames, reasons = Counter[str](), [], Counter[str]()
    for _ in range(runs):
        test = ShadowTest()
        while (verdict := test.add(chance.choice(recorded))) is None:
            pass
        verdicts["passed" if verdict.commit else "rejected"] += 1
        frames.append(float(test.trials))
        reasons[verdict.reason.partition(" (")[0]] += 1
    with_objects = [one for one in recorded if one.objects]
    missed = sum(one.missed > 0 for one in with_objects)
    print(
        f"{runs} A/A runs: {dict(reasons)}; {missed} of {len(with_objects)} recorded frames differ",
        flush=True,
    )
    return {
        "runs": runs,
        "rejected": verdicts["rejected"],
        "reasons": dict(reasons),
        "frames_with_objects": spread(frames),
        "recorded": len(recorded),
        "recorded_with_objects": len(with_objects),
        "recorded_with_a_miss": missed,
    }


def _recorded() -> list[ShadowFrame]:
    request = ModelRequest(MODEL, "onnxruntime", BackendRequest(threads=1))
    model = load_model(request, Detector.from_bundle)
    labels, threshold = model.bundle.labels, model.bundle.manifest.thresholds.score_threshold
    capture = cv2.VideoCapture(str(cache_dir() / "video" / CLIP))
    found = []
    for index in range(FRAMES * EVERY):
        if not capture.grab() or index % EVERY:
            continue
        image = capture.retrieve()[1]
        copy = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1], 1)
        old, new = (model.runner.detect(Frame(one, 0, "", "bgr8")).detections for one in (image, copy))
        found.append(compare(old, labels, new, labels, threshold))
    capture.release()
    model.close()
    return found
