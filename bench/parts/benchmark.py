"""Shared by the benchmarks of the pipeline: arguments, what a result is of, its table and targets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parts.common import REPO, Row, table

from edge_vision.bundles.store import bundles_dir, cache_dir
from edge_vision.offline.provenance import hash_of, machine, versions, write_json

MODEL = "nanodet"


def make_parser(name: str, description: str | None, examples: str) -> argparse.ArgumentParser:
    """A parser with --video, --out and --strict. name: of the benchmark, and of its result."""
    parser = argparse.ArgumentParser(
        description=description, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video", type=Path, default=cache_dir() / "video" / "vtest.avi")
    parser.add_argument("--out", type=Path, default=REPO / "out" / "bench" / f"{name}.json")
    parser.add_argument("--strict", action="store_true", help="exit status 1 where a target is missed")
    return parser


def new_result(video: Path) -> dict[str, Any]:
    """What a result begins with: the machine, the versions, and the hashes of video and model.

    Ends the program without the video.
    """
    if not video.is_file():
        raise SystemExit(f"expected a video at {video}: run `make setup`, which fetches one, or give --video")
    bundle = bundles_dir() / MODEL
    files = {"video": video, "bundle.yaml": bundle / "bundle.yaml", "model.onnx": bundle / "model.onnx"}
    hashes = {name: hash_of(path) for name, path in files.items()}
    return {"machine": machine(), "versions": versions(), "hashes": hashes}


def finish(options: argparse.Namespace, result: dict[str, Any], rows: Sequence[Row], load: str = "") -> int:
    """Write the result with its targets, and print the table. Returns the exit status."""
    result["targets"] = {row.name: row.passed for row in rows if row.target}
    write_json(options.out, result)
    load = load or f"load at the start {result['machine']['load_1m']}"
    cpu, cores = result["machine"]["cpu"], result["machine"]["cores"]
    print(f"\n{table(rows)}\n\n{cpu}, {cores} cores, {load}; written to {options.out}")
    return int(options.strict and any(row.passed is False for row in rows))
