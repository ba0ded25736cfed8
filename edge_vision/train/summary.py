"""What the training commands print at their end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edge_vision.train.recipes.training_report import TrainingReport


def summary(report: TrainingReport) -> str:
    """The figures of a report, as a table."""
    if "rows" in report.figures:
        return _search_table(report)
    labelled = report.labelled.get("judge")
    title = f"  AP50 on {labelled} reviewed" if labelled else ""
    rows = [f"{_judged(report):24} {'agreement':>12} {'SQNR':>8}{title}"]
    for name, quality in report.qualities.items():
        ap50 = "" if quality.map50 is None else f" {quality.map50:8.3f}"
        rows.append(f"{name:24} {quality.agreement:12.3f} {quality.sqnr_db:5.1f} dB{ap50}")
    if "raised" in report.labelled:
        rows.append(
            "labels: {train} pictures to train; over all samples {raised} missed objects raised, "
            "{lowered} boxes lowered".format(**report.labelled)
        )
    times = ", ".join(f"{name} {ratio:.2f}" for name, ratio in report.time_ratios.items())
    rows.append(f"time by that of the teacher's int8: {times}")
    if "unstructured" in report.figures:
        rows.append(_unstructured_row(report.figures["unstructured"]))
    elif "fp32_layers" in report.figures:
        for key, text in (("fp32_time_ratios", "fp32"), ("all_int8_time_ratios", "all layers in int8")):
            ratios = report.figures.get(key, {})
            if ratios:
                times = ", ".join(f"{name} {one:.2f}" for name, one in ratios.items())
                rows.append(f"time by that of {text}: {times}")
        rows.append(f"layers in fp32, those of the stem among them: {len(report.figures['fp32_layers'])}")
    elif report.figures:
        rows += _student_rows(report.figures)
    return "\n".join([*rows, *_last_rows(report)])


def _judged(report: TrainingReport) -> str:
    """On how many images."""
    if report.judge_frames in (0, report.judge_images):
        return f"on {report.judge_images} judge images"
    return f"on {report.judge_frames} frames, {report.judge_images} crops"


def _last_rows(report: TrainingReport) -> list[str]:
    rows = []
    if "ceiling" in report.figures:
        rows.append(
            "agreement of the teacher with itself, picture moved by 2 px: {ceiling:.3f}".format(
                **report.figures
            )
        )
    if "expected_agreement" in report.figures:
        least = report.figures["expected_agreement"]
        rows.append(f"expected agreement of the result: {least:.3f} or more")
    if report.curve and report.best_step is not None:
        kept = f"that of step {report.best_step}" if report.best_step else "the untrained one"
        more = "" if report.best_step else ": training gained nothing, try more --steps or more varied clips"
        rows.append(f"kept state: {kept}, of {report.request.steps}; the best on the validation images{more}")
    rows += [f"note: {report.note}"] if report.note else []
    return [*rows, f"{report.cpu_s / 60:.1f} CPU-min{'; ' + report.stopped if report.stopped else ''}"]


def _search_table(report: TrainingReport) -> str:
    """A row for each network; times by that of the teacher's int8."""
    found, front = report.figures["rows"], report.figures["front"]
    runtimes = list(found[0]["ratios"])
    times = " ".join(f"{name:>12}" for name in ("predicted", *runtimes))
    rows = [f"budget method         size    precision {times}  untuned agreement      MB"]
    for one in found:
        times = " ".join(f"{one['ratios'][name]:12.3f}" for name in runtimes)
        precision, size, _ = one["network"].split("-")
        rows.append(
            f"{one['budget']:6g} {one['method']:14} {size:9} {precision:6} {one['predicted']:12.3f} {times} "
            f"{one['untuned']:8.3f} {one['agreement']:9.3f} {one['bytes'] / 1e6:7.2f}"
            f"{'  on the front' * (one['network'] in front)}"
        )
    rows.append("untuned: fp32 on the validation images; agreement: of the result on the judge images")
    return "\n".join([*rows, *_last_rows(report)])


def _unstructured_row(figures: Mapping[str, float]) -> str:
    before, after = (figures[name] / 1e6 for name in ("teacher_compressed_bytes", "compressed_bytes"))
    return (
        f"for comparison, unstructured: {figures['share']:.0%} of the teacher's int8 weights zero: agreement "
        f"{figures['agreement']:.3f}, time {figures['time_ratio']:.2f}, compressed {after:.2f} of "
        f"{before:.2f} MB"
    )


def _student_rows(figures: Mapping[str, Any]) -> list[str]:
    return [
        f"int8 file: {figures['bytes'] / 1e6:.2f} MB",
        *(
            f"agreement of the teacher without the other feature maps with the whole one: {one:.3f}"
            for one in (figures.get("levels_agreement"),)
            if one is not None
        ),
        *(
            f"agreement on {Path(clip).name}, another scene: "
            + (
                "no objects there"
                if value is None
                else f"{value:.3f}; there the teacher takes over at run time"
            )
            for clip, value in figures["other_agreement"].items()
        ),
    ]
