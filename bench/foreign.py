#!/usr/bin/env python3
"""The optimizer on graphs that it was not built on. `make bench-foreign`. Needs `models fetch nanodet`.

Each graph is optimized on one clip and evaluated on another. Prints a table, writes out/bench/foreign.json.

agreement   F1 of the boxes with the fp32 graph
of ceiling  agreement as a share of fp32's with itself on images moved by 1 and 2 pixels
time        as a share of fp32 in the same runtime, measured alternately
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from parts.common import REPO, Row, at_least, table
from parts.foreign.bundle_writer import FOLDER
from parts.foreign.corpus import CORPUS, Foreign

from edge_vision.backends import BackendRequest, open_session
from edge_vision.bundles.store import cache_dir, load_bundle
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.detect.detector import Detector
from edge_vision.offline.provenance import machine, versions, write_json
from edge_vision.optimize.agreement import detector_agreement

SHIFTS_PX = (1, 2)
TARGET = 0.97
"""Of the noise ceiling, of the better one of int8 and mixed in each runtime."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--graphs", nargs="+", default=[one.name for one in CORPUS], metavar="NAME")
    parser.add_argument("--images", type=int, default=24, help="of each clip")
    parser.add_argument("--measure-s", type=float, default=3.0)
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "foreign.json")
    options = parser.parse_args()
    found, rows = {}, []
    for foreign in CORPUS:
        if foreign.name in options.graphs:
            print(f"{foreign.name}: {foreign.traits} ...", file=sys.stderr, flush=True)
            found[foreign.name] = measured = optimized(foreign, options.images, options.measure_s)
            rows += rows_of(foreign.name, measured)
            print(table(rows_of(foreign.name, measured)), file=sys.stderr, flush=True)
    print(table(rows))
    write_json(options.out, {"machine": machine(), "versions": versions(), "graphs": found})
    return 1 if any(row.passed is False for row in rows) else 0


def optimized(foreign: Foreign, images: int, measure_s: float) -> dict[str, Any]:
    """The results of the optimizer, by candidate, and the noise ceiling; or the reason why there are none."""
    bundle, study = FOLDER / foreign.name, FOLDER.parent / "studies" / foreign.name
    foreign.make(bundle)
    shutil.rmtree(study, ignore_errors=True)
    calibration, evaluation = (str(cache_dir() / "video" / clip) for clip in foreign.clips)
    argv = [
        *(sys.executable, "-m", "edge_vision", "optimize", "run", str(bundle)),
        *("--frames", evaluation, "--calibration", calibration, "--out", str(study)),
        *("--precisions", "fp32", "int8", "mixed", "--threads", "1", "--sizes", "native"),
        *("--images", str(images), "--measure-s", str(measure_s)),
    ]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(argv, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    if not (study / "report.json").is_file():
        lines = (done.stderr or done.stdout).strip().splitlines()
        return {"traits": foreign.traits, "reason": lines[-1] if lines else f"exit status {done.returncode}"}
    report = json.loads((study / "report.json").read_text("utf-8"))
    return {
        "traits": foreign.traits,
        "noise_ceiling": round(noise_ceiling(bundle, study / "images" / "evaluation"), 4),
        "notes": report["notes"],
        "candidates": {f"{one['backend']}-{one['precision']}": _figures(one) for one in report["results"]},
    }


def _figures(result: dict[str, Any]) -> dict[str, Any]:
    measured = result["measurement"]
    if measured is None:
        return {"reason": result["reason"]}
    timing = measured["timing"]
    return {
        "agreement": round(measured["agreement"]["value"], 4),
        "p50_ms": timing["p50_ms"],
        "time_ratio": timing["ratio_to_parent"],
        "time_ratio_band": timing["ratio_band"],
        "file_mb": round(result["graph"]["bytes"] / 1e6, 1),
    }


def noise_ceiling(bundle: Path, images: Path) -> float:
    """F1 of the fp32 graph against itself on images moved right and down, the boxes moved back."""
    session, _ = open_session(
        load_bundle(f"{bundle}{os.sep}"), "onnxruntime", BackendRequest(threads=1), strict=True
    )
    detector = Detector.from_bundle(load_bundle(f"{bundle}{os.sep}"), session)
    pictures = [cv2.imread(str(file)) for file in sorted(images.glob("*.png"))]
    expected = [_moved(detector, picture, 0) for picture in pictures]
    values = [
        detector_agreement([_moved(detector, picture, shift) for picture in pictures], expected).value
        for shift in SHIFTS_PX
    ]
    return float(np.mean(values))


def _moved(detector: Detector, picture: np.ndarray, shift_px: int) -> Detections:
    height, width = picture.shape[:2]
    matrix = np.array([[1, 0, shift_px], [0, 1, shift_px]], np.float32)
    moved = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE)
    found = detector.detect(Frame(moved, 0, "", "bgr8")).detections
    return Detections(found.xyxy_px - np.float32(shift_px), found.scores, found.class_ids)


def rows_of(name: str, measured: dict[str, Any]) -> list[Row]:
    """One row for each candidate, with the target for the better one of int8 and mixed in a runtime."""
    if "reason" in measured:
        return [Row(name, None, "", f">= {TARGET:g}", note=measured["reason"])]
    ceiling, rows = measured["noise_ceiling"], []
    for candidate, figures in measured["candidates"].items():
        backend, _, precision = candidate.partition("-")
        if precision in ("int8", "mixed"):
            peers = [measured["candidates"].get(f"{backend}-{one}", {}) for one in ("int8", "mixed")]
            best = max(peer.get("agreement", 0.0) for peer in peers)
            value = figures.get("agreement")
            note = figures.get("reason") or f"agreement {value:.3f}, time {figures['time_ratio']:.2f} of fp32"
            title, share = f"{name} {candidate}", None if value is None else value / ceiling
            rows.append(
                at_least(title, share, TARGET, "of ceiling", note)
                if value == best
                else Row(title, share, "of ceiling", note=note)
            )
    return rows


if __name__ == "__main__":
    sys.exit(main())
