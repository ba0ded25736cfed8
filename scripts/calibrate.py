"""Measures the activation ranges that the int8 graphs of NanoDet are made with.

    .venv/bin/python -m scripts.calibrate    writes edge_vision/model_zoo/data/nanodet.json

Needs `edge-vision models fetch nanodet` and the clips of the evaluation (`make setup-evaluate`). Clips that
evaluate the detector (vtest, carphone_pristine, sports2d_park) are not among those of the calibration.
"""

from __future__ import annotations

import json

from edge_vision.bundles.store import cache_dir, load_bundle, sha256_of
from edge_vision.model_zoo.int8_graph import DATA
from edge_vision.offline.media_files import frame_times_s
from edge_vision.optimize.data.clips import evenly, video_images
from edge_vision.optimize.quantization import graph_session, ptq
from edge_vision.optimize.quantization.make_variant import input_tensors

NAME = "nanodet"
CLIPS = ("bikes.mp4", "tvshow_van_cuts.mp4", "segway_crowd_pan.mp4", "basketball.mp4", "soccer_juggling.avi")
IMAGES = 10
"""Of each clip, evenly over it."""


def main() -> None:
    bundle = load_bundle(NAME)
    graph = bundle.manifest.graphs[0]
    frames, tensors = {}, []
    for clip in CLIPS:
        path = cache_dir() / "video" / clip
        numbers = evenly(range(len(frame_times_s(str(path)))), IMAGES)
        frames[clip] = {"sha256": sha256_of(path), "frames": numbers}
        tensors += input_tensors(bundle.manifest.input, video_images(path, IMAGES))
    ranges = ptq.calibrate(graph_session.folded(bundle.verify(graph)), tensors)
    content = {
        "about": "minimum and maximum of each tensor on these frames; written by scripts/calibrate.py",
        "graph_sha256": graph.sha256,
        "frames": frames,
        "ranges": {name: [float(f"{bound:.6g}") for bound in pair] for name, pair in sorted(ranges.items())},
    }
    (DATA / f"{NAME}.json").write_text(json.dumps(content, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
