#!/usr/bin/env python3
"""Adds a metric to the evaluation: the longest run of consecutive inferences.

python examples/extending/metric.py clip.mp4 out/metric
"""

from __future__ import annotations

import argparse
import json
import sys
from itertools import groupby
from pathlib import Path

from edge_vision.evaluate.command import main
from edge_vision.evaluate.metrics.metric import MethodRun, Metric


class LongestBurst(Metric):
    name, column, unit, better = "longest_burst_frames", "longest burst", "frames", "lower"
    doc = "Longest run of consecutive inferences, which a cooling budget must sustain"

    def compute(self, run: MethodRun) -> float:
        runs = groupby(run.published.inferred.tolist())
        return max((len(list(frames)) for inferred, frames in runs if inferred), default=0)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clip")
    parser.add_argument("out", help="folder")
    options = parser.parse_args()
    metric = f"{Path(__file__).stem}:LongestBurst"
    status = main(["gate", "--video", options.clip, "--quick", "--metric", metric, "--out", options.out])
    if status == 0:
        methods = next(iter(json.loads(Path(options.out, "report.json").read_text())["conditions"].values()))[
            "methods"
        ]
        print(f"longest burst: {methods['gate']['longest_burst_frames']} frames")
    sys.exit(status)
