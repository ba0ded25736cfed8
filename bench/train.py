#!/usr/bin/env python3
"""Training of shipped bundles on the public clips: QAT, pruning, a student, a search. `make bench-train`.
Prints a table and writes out/train/report.json, curves.png and one folder for each run.

Trained on the first 65 % of each clip, judged on the last 30 %. Times are compared in ONNX Runtime and
OpenVINO, with one thread. An interrupted run continues.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from parts.common import REPO, Row, at_least, at_most, table

from edge_vision.bundles.store import cache_dir
from edge_vision.offline.progress import ProgressLine
from edge_vision.offline.provenance import machine, versions, write_json

CLIPS = ("vtest.avi", "bikes.mp4", "sports2d_park.mp4", "segway_crowd_pan.mp4", "tvshow_van_cuts.mp4")
MORE = ("bigbuckbunny.mp4", "carphone_pristine.mp4", "opossum_snow.mp4")
EFFICIENTNET = {"model": "efficientnet_lite0_imagenet", "videos": (*CLIPS, *MORE)}
SSD = {"model": "ssdlite_mobilenet_v2_coco", "videos": ("vtest.avi",)}
STUDENT = {"classes": ("person", "car"), "levels": 1, "other": ("bikes.mp4",)}
RUNS: dict[str, dict[str, Any]] = {
    "efficientnet_qat": {**EFFICIENTNET, "recipe": "qat", "steps": 200},
    "efficientnet_mixed": {**EFFICIENTNET, "recipe": "qat", "steps": 150, "mixed": 0.75},
    "ssd_qat": {**SSD, "recipe": "qat", "videos": CLIPS, "steps": 150},
    "ssd_prune": {**SSD, "recipe": "prune", "steps": 180, "samples": 960, "share": 0.34},
    "ssd_student": {**SSD, **STUDENT, "recipe": "student", "steps": 400, "samples": 2400, "share": 0.4},
    "ssd_search": {
        **SSD,
        "recipe": "search",
        "steps": 40,
        "batch": 4,
        "samples": 320,
        "budgets": (0.85, 0.7, 0.55),
    },
}
"""Name -> options of the training."""
SEARCH_CPU_MIN, MEMORY_MB = 30.0, 4096
STUDENT_TIMES, STUDENT_MB, STUDENT_CPU_MIN = {"onnxruntime": 0.45, "openvino": 0.35}, 0.6, 12.0
GAIN_DB, SAME_TIME, QAT_CPU_MIN = 2.5, 1.05, 6.0
MIXED_AGREEMENT, MIXED_TIME = 0.99, 0.75
PRUNED_TIME, BELOW_CEILING, PRUNE_CPU_MIN = 0.75, 0.01, 5.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", nargs="+", default=list(RUNS), choices=list(RUNS))
    parser.add_argument("--out", type=Path, default=REPO / "out" / "train")
    parser.add_argument("--restart", action="store_true", help="train again what is finished")
    options = parser.parse_args()
    results = {name: in_own_process(name, options.out / name, options.restart) for name in options.runs}
    rows = [row for name, result in results.items() for row in rows_of(name, result)]
    print(table(rows))
    content = {
        "machine": machine(),
        "versions": versions(),
        "runs": results,
        "rows": list(map(asdict, rows)),
    }
    write_json(options.out / "report.json", content)
    plot(results, options.out / "curves.png")
    return 1 if any(row.passed is False for row in rows) else 0


def in_own_process(name: str, folder: Path, restart: bool) -> dict[str, Any]:
    """As `measured`, with the peak memory of this training alone."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(measured, name, folder, restart).result()


def measured(name: str, folder: Path, restart: bool = False) -> dict[str, Any]:
    """The report of a training. peak_rss_mb: None if it was finished before."""
    import torch

    from edge_vision.train.recipes.run_folder import REPORT, remove_results
    from edge_vision.train.recipes.training_request import TrainingRequest
    from edge_vision.train.run import run_recipe

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    request = TrainingRequest(**RUNS[name])
    videos, other = (
        tuple(str(cache_dir() / "video" / clip) for clip in clips)
        for clips in (request.videos, request.other)
    )
    request = replace(request, videos=videos, other=other)
    if restart:
        remove_results(folder)
    is_new = not (folder / REPORT).is_file()
    report = run_recipe(folder, request, print, ProgressLine().show)
    result: dict[str, Any] = asdict(report)
    result["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024 if is_new else None
    return result


def rows_of(name: str, result: Mapping[str, Any]) -> list[Row]:
    """The figures with the targets."""
    memory = [at_most(f"{name}: peak memory", one, MEMORY_MB, "MB") for one in [result["peak_rss_mb"]] if one]
    return [*training_rows(name, result), *memory]


def training_rows(name: str, result: Mapping[str, Any]) -> list[Row]:
    """All but the memory."""
    if result["request"]["recipe"] == "student":
        return student_rows(name, result)
    if result["request"]["recipe"] == "search":
        return search_rows(name, result)
    cpu_min, mixed = round(result["cpu_s"] / 60, 2), bool(result["request"]["mixed"])
    if result["request"]["recipe"] == "qat":
        times = result["figures"]["fp32_time_ratios" if mixed else "all_int8_time_ratios"]
        most, by = (MIXED_TIME, "of fp32") if mixed else (SAME_TIME, "of the teacher with all layers in int8")
        return [
            *(mixed_rows if mixed else qat_rows)(name, result),
            at_most(f"{name}: CPU time", cpu_min, QAT_CPU_MIN, "min"),
            *(at_most(f"{name}: time, {runtime}", ratio, most, by) for runtime, ratio in times.items()),
        ]
    return [
        *prune_rows(name, result),
        at_most(f"{name}: CPU time", cpu_min, PRUNE_CPU_MIN, "min"),
        *(
            at_most(f"{name}: time, {runtime}", ratio, PRUNED_TIME, "of teacher's int8")
            for runtime, ratio in result["time_ratios"].items()
        ),
    ]


def mixed_rows(name: str, result: Mapping[str, Any]) -> list[Row]:
    """Against PTQ with all layers in int8."""
    int8, ptq, qat = (result["qualities"][one] for one in ("PTQ, all in int8", "PTQ", "QAT"))
    left = (1 - qat["agreement"]) / max(1e-9, 1 - int8["agreement"])
    layers = (
        f"{len(result['figures']['fp32_layers'])} layers in fp32; without training {ptq['agreement']:.3f}"
    )
    return [
        Row(
            f"{name}: SQNR",
            qat["sqnr_db"],
            "dB",
            note=f"int8 {int8['sqnr_db']:.1f}, mixed {ptq['sqnr_db']:.1f}",
        ),
        at_least(f"{name}: agreement", qat["agreement"], MIXED_AGREEMENT, "", layers),
        at_most(f"{name}: disagreements left", round(left, 3), 0.5, "of PTQ's in int8"),
    ]


def qat_rows(name: str, result: Mapping[str, Any]) -> list[Row]:
    before, stem, after = (result["qualities"][one] for one in ("PTQ, all in int8", "PTQ", "QAT"))
    gain = round(after["sqnr_db"] - before["sqnr_db"], 2)
    left = (1 - after["agreement"]) / max(1e-9, 1 - before["agreement"])
    least = GAIN_DB if name.startswith("efficientnet") else 0.0
    chance = 1 / result["judge_images"] if least else 0.0
    images = f"{result['judge_images']} images; PTQ {stem['agreement']:.3f}, all {before['agreement']:.3f}"
    note = f"PTQ {stem['sqnr_db']:.1f} dB, with all layers in int8 {before['sqnr_db']:.1f} dB"
    rows = [
        at_least(f"{name}: SQNR gained", gain, least, "dB", note),
        at_least(f"{name}: agreement", after["agreement"], round(stem["agreement"] - chance, 4), "", images),
    ]
    if least:
        unit = "of PTQ's with all layers in int8"
        rows.append(at_most(f"{name}: disagreements left", round(left, 3), 0.5, unit))
    return rows


def prune_rows(name: str, result: Mapping[str, Any]) -> list[Row]:
    found = {graph: one["agreement"] for graph, one in result["qualities"].items()}
    images, least = f"{result['judge_images']} images", round(result["figures"]["ceiling"] - BELOW_CEILING, 4)
    judged = found.pop("pruned int8")
    return [
        *(Row(f"{name}: agreement, {graph}", value, "", note=images) for graph, value in found.items()),
        at_least(f"{name}: agreement, pruned int8", judged, least, "", images),
    ]


def student_rows(name: str, result: Mapping[str, Any]) -> list[Row]:
    figures, found = result["figures"], result["qualities"]["student int8"]["agreement"]
    images = f"{result['judge_images']} images"
    return [
        at_least(f"{name}: agreement, int8", found, figures["ceiling"], "", images),
        *(Row(f"{name}: agreement on another scene", one, "") for one in figures["other_agreement"].values()),
        *(
            at_most(f"{name}: time, {runtime}", ratio, STUDENT_TIMES[runtime], "of teacher's int8")
            for runtime, ratio in result["time_ratios"].items()
        ),
        at_most(f"{name}: file", round(figures["bytes"] / 1e6, 2), STUDENT_MB, "MB"),
        at_most(f"{name}: CPU time", round(result["cpu_s"] / 60, 2), STUDENT_CPU_MIN, "min"),
    ]


def search_rows(name: str, result: Mapping[str, Any]) -> list[Row]:
    """At each budget the better of the two searches against uniform widths, on the judge images."""
    figures, rows = result["figures"], []
    for runtime, one in figures["latency_errors"].items():
        unseen = f"{one['networks']} unseen networks"
        rows += [
            at_most(f"{name}: latency model, {runtime}, mean error", one["mean"], 0.06, "", unseen),
            at_most(f"{name}: latency model, {runtime}, worst error", one["worst"], 0.15, ""),
            at_least(f"{name}: latency model, {runtime}, rank correlation", one["spearman"], 0.9, ""),
        ]
    for budget in result["request"]["budgets"]:
        found = {one["method"]: one for one in figures["rows"] if one["budget"] == budget}
        uniform = found.pop("uniform")
        best = max(found.values(), key=lambda one: float(one["validation"]))
        ratios = [one["ratios"]["onnxruntime"] for one in (best, uniform)]
        note = f"{best['method']}, uniform {uniform['agreement']:.3f}; time {ratios[0]:.3f}, {ratios[1]:.3f}"
        least = uniform["agreement"]
        rows.append(at_least(f"{name}: agreement at {budget:g}", best["agreement"], least, "", note))
    return [
        *rows,
        at_most(f"{name}: CPU time", round(result["cpu_s"] / 60, 2), SEARCH_CPU_MIN, "min"),
    ]


def plot(results: Mapping[str, Mapping[str, Any]], file: Path) -> None:
    """Validation SQNR by step of each bundle."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 3.5))
    for name, result in results.items():
        if result["request"]["recipe"] in ("student", "search"):  # Curves of the F1, and several.
            continue
        steps, _, scores = zip(*result["curve"], strict=True)
        axes.plot(steps, scores, marker=".", label=name)
    axes.set(xlabel="step", ylabel="SQNR on validation images, dB")
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend()
    figure.tight_layout()
    figure.savefig(file, dpi=120)


if __name__ == "__main__":
    sys.exit(main())
