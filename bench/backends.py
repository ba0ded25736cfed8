#!/usr/bin/env python3
"""Compares the runtimes: `make bench-backends`. Prints tables, and writes out/bench/backends.json.

One cell is a graph on a backend, in a precision, with a number of threads, in a fresh process. The cells of
one model take turns in short rounds, so that what else the machine does meets all alike.

p50 p95 p99     milliseconds of a run through our session, pre- and post-processing left out
to eager        how many times as fast as PyTorch's eager execution with its best number of threads (median),
                whose threads wait passively, which is kind to it where the cores are shared
rss             memory of the process after the first run, MB
load            from the import of the runtime to the end of the first run, s
f1              agreement with ONNX Runtime in fp32 on 33 frames of the video: boxes of the same class at
                IoU 0.5, or the best class. None for random weights: mobilenet_v2, yolo_nano, vit_tiny
wrapper         our session over the runtime's own call, pair by pair, the median
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from parts.backends.cell_process import Cell, reads_tflite
from parts.backends.models import BUNDLES, RANDOM, Model, prepare
from parts.common import REPO, Row, at_least, at_most, median_ratio, table

from edge_vision.backends import available_backends, backends_with, make_backend
from edge_vision.backends.host import usable_cores
from edge_vision.backends.registry import REFERENCE
from edge_vision.bundles.store import cache_dir
from edge_vision.core.detections import Detections
from edge_vision.core.geometry.boxes import true_positives
from edge_vision.offline.provenance import hash_of, machine, versions

MODELS = (*BUNDLES, *RANDOM)
# Times as fast as eager, at least.
TARGETS = {"mobilenet_v2": 5.0, "yolo_nano": 3.0}
WRAPPER_RATIO = 1.05
ROUNDS = 12
ROUND_MS = 150.0
_EXAMPLES = """examples:
  python bench/backends.py                               about ten minutes
  python bench/backends.py --rounds 3                    noisier
  python bench/backends.py --models yolo_nano vit_tiny   some models
  python bench/backends.py --strict                      exit status 1 where a target is missed"""


def main() -> int:
    options = _parser().parse_args()
    for video in (options.video, options.calibration):
        if not video.is_file():
            print(f"expected a video at {video}: run `make setup`, which fetches it", file=sys.stderr)
            return 1
    rows: list[dict[str, Any]] = []
    about = {"machine": machine(), "versions": versions(), "video_sha256": hash_of(options.video)}
    for name in options.models:
        model = prepare(name, options.calibration)
        measured = measure(model, options.video, options.rounds)
        print(shown(measured), flush=True)
        rows += [{**row, **about, "rounds": options.rounds} for row in measured]
        _write(options.out, rows)
    verdicts = target_rows(rows)
    print(table(verdicts))
    print(f"\n{options.out}")
    return int(options.strict and any(row.passed is False for row in verdicts))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=_EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    videos = cache_dir() / "video"
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS), metavar="NAME")
    parser.add_argument("--video", type=Path, default=videos / "vtest.avi")
    parser.add_argument("--calibration", type=Path, default=videos / "bikes.mp4", help="a video for int8")
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / "backends.json")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each model, {ROUNDS} by default")
    parser.add_argument("--strict", action="store_true", help="fail where a target is missed")
    return parser


def cells_of(model: Model) -> list[Cell]:
    """What is compared: a core, all cores, and twice as many threads, which is what not to do."""
    cores = usable_cores()
    some = list(dict.fromkeys((1, cores)))
    kinds = [("pytorch", "fp32", some)]
    for name in backends_with(lambda backend: backend.can_optimize):
        backend = make_backend(name)
        if "onnx" in backend.formats:
            kinds.append((name, "fp32", [*some, 2 * cores] if name == REFERENCE else some))
            kinds.append((name, "int8", some))
            kinds += [(name, precision, [cores]) for precision in backend.computes_in]
        elif "tflite" in backend.formats and "tflite fp32" in model.graphs:
            kinds.append((name, "fp32", some))
    reasons = available_backends()
    for name in {backend for backend, _, _ in kinds}:
        if reasons.get(name):
            print(f"{name} is left out: {reasons[name]}", file=sys.stderr)
    return [
        Cell(model, backend, precision, threads)
        for backend, precision, counts in kinds
        if not reasons.get(backend)
        for threads in counts
    ]


def measure(model: Model, video: Path, rounds: int) -> list[dict[str, Any]]:
    """The rows of one model."""
    cells: list[Cell] = []
    try:
        for cell in cells_of(model):
            _say(f"{model.name}: {cell.backend} {cell.precision} starts")
            try:
                cell.start(video)
                cells.append(cell)
            except RuntimeError as error:
                cell.end()
                print(f"\nleft out: {error}", file=sys.stderr)
        for number in range(-1, rounds):
            _say(f"{model.name}: round {number + 1}/{rounds}")
            # Each round starts with another cell.
            for cell in cells[number % len(cells) :] + cells[: number % len(cells)]:
                _round(cell, warm_up=number < 0)
        for cell in cells:
            cell.detect()
        _say("")
        return _rows(model, cells)
    finally:
        for cell in cells:
            cell.end()


def _say(text: str) -> None:
    """On one line of a terminal; a log needs no progress."""
    if sys.stdout.isatty():
        print(f"\r\033[K{text}", end="", flush=True)


def _round(cell: Cell, warm_up: bool) -> None:
    if warm_up:
        cell.run(cell.count)
        # The wrapper's ratio needs pairs; PyTorch, which can take seconds, has none.
        cell.count = int(np.clip(ROUND_MS / min(cell.wrapped_ms), 3 if cell.bare_ms else 1, 40))
        cell.wrapped_ms, cell.bare_ms = [], []
    else:
        cell.run(cell.count)


def _rows(model: Model, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    eager = min((statistics.median(c.wrapped_ms) for c in cells if c.backend == "pytorch"), default=None)
    reference = next(c.found for c in cells if (c.backend, c.precision) == (REFERENCE, "fp32"))
    return [_row(model, cell, eager, reference) for cell in cells]


def _row(model: Model, cell: Cell, eager_ms: float | None, reference: list[Any] | None) -> dict[str, Any]:
    p50, p95, p99 = np.percentile(cell.wrapped_ms, (50, 95, 99))
    actual = cell.loaded["precision"]
    kind = "tflite" if reads_tflite(cell.backend) else "onnx"
    graph = model.graphs[f"{kind} {'int8' if cell.precision == 'int8' else 'fp32'}"]
    return {
        "model": model.name,
        "weights": "published" if model.bundle else "random",
        "backend": cell.backend,
        "backend_version": cell.loaded["version"],
        # As the runtime reports it: a request for bf16 may have no effect.
        "precision": actual if cell.precision == "bf16" else cell.precision,
        "requested_precision": cell.precision,
        "threads": cell.threads,
        "n": len(cell.wrapped_ms),
        "p50_ms": float(p50),
        "p95_ms": float(p95),
        "p99_ms": float(p99),
        "ratio_to_eager": eager_ms / float(p50) if eager_ms else None,
        "rss_mb": cell.loaded["rss_mb"],
        "load_s": cell.loaded["load_s"],
        "agreement_f1": agreement(cell.found, reference),
        "wrapper_ratio": median_ratio(cell.wrapped_ms, cell.bare_ms) if cell.bare_ms else None,
        "graph_sha256": hash_of(graph),
    }


def agreement(found: list[Any] | None, reference: list[Any] | None) -> float | None:
    """F1 over all frames; for classes, one per frame, it is the share of frames that agree."""
    if not found or not reference:
        return None
    if isinstance(found[0], int):
        return sum(a == b for a, b in zip(found, reference, strict=True)) / len(reference)
    ours, theirs = [[_detections(one) for one in side] for side in (found, reference)]
    hits = sum(true_positives(a, b) for a, b in zip(ours, theirs, strict=True))
    total = sum(map(len, ours)) + sum(map(len, theirs))
    return 2 * hits / total if total else None


def _detections(lists: Sequence[Any]) -> Detections:
    boxes, scores, class_ids = lists
    xyxy_px = np.asarray(boxes, np.float32).reshape(-1, 4)
    return Detections(xyxy_px, np.asarray(scores, np.float32), np.asarray(class_ids, np.int32))


_COLUMNS = {
    "backend": "backend",
    "precision": "precision",
    "threads": "threads",
    "p50_ms": "p50 ms",
    "p95_ms": "p95 ms",
    "p99_ms": "p99 ms",
    "ratio_to_eager": "to eager",
    "rss_mb": "rss MB",
    "load_s": "load s",
    "agreement_f1": "f1",
    "wrapper_ratio": "wrapper",
}


def shown(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of one model for people, the fastest one first."""
    lines = [list(_COLUMNS.values())]
    for row in sorted(rows, key=lambda row: row["p50_ms"]):
        lines.append([_text(row[key]) for key in _COLUMNS])
    widths = [max(len(line[i]) for line in lines) for i in range(len(_COLUMNS))]
    head = f"{rows[0]['model']}, {rows[0]['weights']} weights, {rows[0]['n']} runs or more"
    body = ["  ".join(text.ljust(w) for text, w in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([head, *body, ""])


def _text(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def target_rows(rows: Sequence[dict[str, Any]]) -> list[Row]:
    """The rows with targets: the best cell over eager PyTorch, and the worst wrapper ratio."""
    verdicts: list[Row] = []
    for name in dict.fromkeys(row["model"] for row in rows):
        best = max(
            (row for row in rows if row["model"] == name), key=lambda row: row["ratio_to_eager"] or 0.0
        )
        note = f"{best['backend']} {best['precision']}, {best['threads']} threads, {best['p50_ms']:.1f} ms"
        ratio = best["ratio_to_eager"]
        if name in TARGETS:
            verdicts.append(at_least(f"{name}, best over eager", ratio, TARGETS[name], "times", note))
        else:
            verdicts.append(Row(f"{name}, best over eager", ratio, "times", note=note))
    worst = max((r for r in rows if r["wrapper_ratio"]), key=lambda r: r["wrapper_ratio"], default=None)
    if worst:
        note = f"{worst['model']}, {worst['backend']} {worst['precision']}, {worst['threads']} threads"
        note += f", {worst['n']} pairs"
        verdicts.append(at_most("wrapper, worst of all", worst["wrapper_ratio"], WRAPPER_RATIO, "", note))
    return verdicts


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(rows, indent=1) + "\n")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
