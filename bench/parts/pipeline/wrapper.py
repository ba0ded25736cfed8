"""What `Detector.detect` costs beyond the bare runtime and the same pre- and post-processing. No ROS.

python bench/parts/pipeline/wrapper.py --video clip.avi --count 200
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import cv2
from parts.common import interleaved_ms, median_ratio, spread
from parts.pipeline.in_process import read_pictures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path, required=True)
    parser.add_argument("--model", default="nanodet")
    parser.add_argument("--count", type=int, default=200, help="pairs")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    print("RESULT " + json.dumps(measure(options.video, options.model, options.count)))
    return 0


def measure(video: Path, model: str, count: int) -> dict[str, Any]:
    """Both run on the same images in the same process, interleaved; the ratio is the median over the pairs.

    The bare way: the session of ONNX Runtime itself, our session class left out, on the tensor that the
    pre-processing made, and the head's arithmetic on its outputs. A second ratio leaves the pre- and
    post-processing out: `detect` over the session's run alone.
    """
    from edge_vision.backends import BackendRequest, open_session
    from edge_vision.bundles import load_bundle
    from edge_vision.core.frame import Frame
    from edge_vision.core.preprocess import Preprocessor
    from edge_vision.detect.detector import Detector, to_source_pixels
    from edge_vision.detect.heads import make_head

    bundle = load_bundle(model)
    session, _ = open_session(bundle, "onnxruntime", BackendRequest())
    detector = Detector.from_bundle(bundle, session)
    manifest = bundle.manifest
    head = make_head(manifest.head, manifest.input, session.outputs, len(bundle.labels))
    preprocessor = Preprocessor(manifest.input)
    runtime = session._session  # type: ignore[attr-defined]
    names = [output.name for output in runtime.get_outputs()]
    frames = [Frame(p, i + 1, "camera") for i, p in enumerate(read_pictures(video, (640, 480)))]
    ours, theirs = itertools.cycle(frames), itertools.cycle(frames)
    inference: list[float] = []

    def bare() -> object:
        tensor, transform = preprocessor.prepare(next(theirs))
        values = runtime.run(names, {manifest.input.name: tensor})
        outputs = dict(zip(names, values, strict=True))
        return to_source_pixels(head.decode(outputs, manifest.thresholds), transform)  # type: ignore[call-arg, arg-type]

    def wrapped() -> object:
        result = detector.detect(next(ours))
        inference.append(result.timing.inference_ms)
        return result

    interleaved_ms(wrapped, bare, 10)
    inference.clear()
    wrapped_ms, bare_ms = interleaved_ms(wrapped, bare, count)
    return {
        "wrapper_ratio": median_ratio(wrapped_ms, bare_ms),
        "detect_ms": spread(wrapped_ms),
        "bare_ms": spread(bare_ms),
        "detect_to_inference_ratio": statistics.median(
            a / b for a, b in zip(wrapped_ms, inference, strict=True)
        ),
    }


if __name__ == "__main__":
    sys.exit(main())
