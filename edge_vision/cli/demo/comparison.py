"""The figures of both runs, as report.json and as a table. The first run is the reference of the second."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.core.detection_overlay import label_of
from edge_vision.core.diagnostic_status import finite_number
from edge_vision.evaluate.condition_data import ConditionData
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.evaluate.live.pipeline_process import PipelineProcess
from edge_vision.evaluate.live.run_record import ReceivedDetections, RunRecord
from edge_vision.evaluate.metrics.builtin import BY_NAME, RecallWithin
from edge_vision.evaluate.metrics.metric import Cost, MethodRun
from edge_vision.evaluate.reference.detector import Reference
from edge_vision.evaluate.reference.events import clip_entries, clustered
from edge_vision.evaluate.schedule.live import MAX_LOST_SHARE
from edge_vision.evaluate.simulation import Published

EVERY_FRAME, SCHEDULED = "every_frame", "edge_vision"
METRICS = ("delay_ms_p95", "frame_f1")
MIN_SAVING = 0.05
"""A smaller difference of CPU time is not called a saving: two equal runs differ as much."""
Figures = Mapping[str, Any]


def run_figures(record: LiveRecord, process: PipelineProcess) -> dict[str, Any]:
    """What a run received and cost; None for what was not reported. CPU: from the first frame on."""
    (frames, detector_runs), first_s = record.frame_counts(), record.first_detection_s
    played_s = record.played_cpu_s(process.usage.cpu_s)
    status = record.statuses.get("detector", {})
    return {
        "ledger": record.ledger,
        "reasons": record.reasons,
        "frames": frames,
        "detector_runs": detector_runs,
        "cpu_s": played_s,
        "cpu_s_per_1000": _per_1000(played_s, frames),
        "age_ms": record.age_ms(),
        "rss_peak_mb": process.peak_mb,
        "first_detection_s": None if first_s is None else first_s - process.started_s,
        "model": status.get("model"),
        "backend": status.get("backend.actual.backend"),
        "device": status.get("backend.actual.device"),
        "fallback_reason": status.get("backend.fallback_reason", ""),
    }


def _per_1000(cpu_s: float | None, frames: int) -> float | None:
    return cpu_s / frames * 1000 if cpu_s is not None and frames else None


def agreement(
    reference: LiveRecord, compared: LiveRecord, times_s: Sequence[float], max_delay_ms: float
) -> dict[str, Any]:
    """How what one run published agrees with the detections of the other, on the frames that the latter has.

    times_s: of the frames. recall: within max_delay_ms. noise_ceiling: as the gate estimates it.
    """
    found = reference.by_frame()
    at = [index for index in range(len(times_s)) if index in found]
    published, _ = compared.published(len(times_s))
    stamps_ns = np.array([round(times_s[index] * 1e9) for index in at], np.int64)
    expected = Reference(stamps_ns, [found[index] for index in at], [], [], 0.0, (0, 0))
    entries, object_boxes = clip_entries(expected)
    data = ConditionData(expected, clustered(entries, stamps_ns), object_boxes)
    shown = Published(published.inferred[at], [published.detections[index] for index in at])
    run = MethodRun(data, shown, Cost())
    figures = {name: BY_NAME[name].compute(run) for name in METRICS}
    recall, ceiling = RecallWithin(max_delay_ms).compute(run), compared.statuses.get("gate", {})
    return {
        "frames": len(at),
        "events": len(data.events),
        "recall": recall,
        **figures,
        "noise_ceiling": finite_number(ceiling, "schedule.noise_ceiling"),
    }


def notes(report: Figures) -> list[str]:
    """Remarks that a reader needs for the table, the result first."""
    first, second = report["runs"][EVERY_FRAME], report["runs"][SCHEDULED]
    found = [_result(first, second)]
    for name, run in ((_TITLES[EVERY_FRAME], first), (report["preset"], second)):
        superseded = run["ledger"]["superseded"]
        if superseded > MAX_LOST_SHARE * run["frames"]:
            found.append(
                f"{name}: {superseded} of {run['frames']} frames were superseded, as this machine did not "
                "keep up with the clip. Close other programs, or choose a faster model or backend."
            )
        failed = {reason: count for reason, count in run["reasons"].items() if _is_failure(reason)}
        if failed:
            counts = ", ".join(f"{reason} {count}" for reason, count in failed.items())
            found.append(f"{name}: frames that could not be used: {counts}.")
        if run["fallback_reason"]:
            found.append(f"{name}: {run['fallback_reason']}")
    found += _fidelity(report)
    if not report["agreement"]["events"]:
        found.append("No object enters this clip after its first frame, so there is no recall.")
    return found


def _fidelity(report: Figures) -> list[str]:
    """What a frame F1 below the noise ceiling means for min_fidelity, if the gate has an estimate of it."""
    f1, ceiling = report["agreement"]["frame_f1"], report["agreement"]["noise_ceiling"]
    wanted = report["promise"]["min_fidelity"]
    if f1 is None or not ceiling or f1 >= ceiling:
        return []
    missed = "" if f1 >= wanted * ceiling else ", which is missed on this clip"
    itself = f"the detector's agreement with itself ({ceiling:.3f}, as the gate estimates it)"
    return [f"Frame F1 {f1:.3f} is {f1 / ceiling:.2f} of {itself}; min_fidelity is {wanted:g}{missed}."]


def _is_failure(reason: str) -> bool:
    """Whether a reason of the ledger is that of a failed frame, other than by the end of the run."""
    return reason.startswith("failed.") and not reason.endswith(("deactivated", "_inactive"))


def _result(first: Figures, second: Figures) -> str:
    runs = second["detector_runs"] / max(1, second["frames"])
    text = f"The detector ran on {_percent(runs)} of the frames"
    share = _cpu_share(first, second)
    if share is None:
        return f"{text}; the CPU time was not reported."
    text = f"{text}, for {_percent(share)} of the CPU time."
    if share > 1 - MIN_SAVING:
        text = f"No saving on this clip: {text[0].lower()}{text[1:]} {_why(first)}"
    return text


def _why(first: Figures) -> str:
    """Why nothing was saved: the run on every frame lost frames, too, or the clip."""
    if first["ledger"]["superseded"] > MAX_LOST_SHARE * first["frames"]:
        inferred = _percent(first["detector_runs"] / max(1, first["frames"]))
        return (
            f"But the run with the detector on every frame inferred only {inferred} of them, because this "
            "machine was too slow: its CPU time is too low to compare with. Repeat on an idle machine."
        )
    return "docs/gate.md lists when the gate does not help."


_TITLES = {EVERY_FRAME: "every frame"}


def _cpu_share(first: Figures, second: Figures) -> float | None:
    one, other = first["cpu_s_per_1000"], second["cpu_s_per_1000"]
    return other / one if one and other is not None else None


def table(report: Figures) -> str:
    """The figures of both runs, side by side."""
    first, second, same = report["runs"][EVERY_FRAME], report["runs"][SCHEDULED], report["agreement"]
    recall, limit_ms = same["recall"], report["promise"]["max_delay_ms"]
    in_time = "n/a" if recall is None else f"{round(recall * same['events'])} of {same['events']}"
    rows = [
        ("", _TITLES[EVERY_FRAME], report["preset"]),
        ("frames", f"{first['frames']}", f"{second['frames']}"),
        ("detector runs", *(_runs(run) for run in (first, second))),
        _row("CPU of the whole process", first["cpu_s"], second["cpu_s"], "s", 2),
        _row("CPU per 1000 frames", first["cpu_s_per_1000"], second["cpu_s_per_1000"], "s", 1),
        (f"objects found within {limit_ms:.0f} ms", "reference", in_time),
        ("frame F1", "reference", BY_NAME["frame_f1"].text(same["frame_f1"])),
        ("age of detections, p95", *(_text(_p95(run), "ms") for run in (first, second))),
        ("memory (RSS), peak", *(_text(run["rss_peak_mb"], "MB") for run in (first, second))),
    ]
    return "\n".join(f"  {name:<28}{one:>14}{other:>20}".rstrip() for name, one, other in rows)


def _runs(run: Figures) -> str:
    return f"{run['detector_runs']} ({_percent(run['detector_runs'] / max(1, run['frames']))})"


def _p95(run: Figures) -> float | None:
    return (run["age_ms"] or {}).get("p95")


def _row(
    name: str, one: float | None, other: float | None, unit: str = "", digits: int = 0
) -> tuple[str, str, str]:
    """The second value with its share of the first."""
    share = f" ({_percent(other / one)})" if one and other is not None else ""
    return name, _text(one, unit, digits), _text(other, unit, digits) + share


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _text(value: float | None, unit: str, digits: int = 0) -> str:
    return "unavailable" if value is None else f"{value:.{digits}f} {unit}".rstrip()


def write_detections(record: RunRecord, path: Path) -> None:
    """One line of JSON per inferred frame, in the order of arrival; boxes in source pixels.

    Raises OSError.
    """
    lines = (json.dumps(_line(record, one)) + "\n" for one in record.detections)
    write_file(path, "".join(lines).encode())


def _line(record: RunRecord, one: ReceivedDetections) -> dict[str, Any]:
    objects = one.objects
    return {
        "stamp_ns": one.stamp_ns,
        "frame_id": one.frame_id,
        "frame_index": record.index_of.get(one.stamp_ns),
        "boxes_xyxy_px": [[round(v, 2) for v in box] for box in objects.xyxy_px.tolist()],
        "labels": [label_of(record.labels, i) for i in objects.class_ids.tolist()],
        "class_ids": objects.class_ids.tolist(),
        "scores": [round(score, 4) for score in objects.scores.tolist()],
    }
