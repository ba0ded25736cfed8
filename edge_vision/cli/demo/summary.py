"""The results of a run as files (summary.json, detections.jsonl) and as text."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.core.detection_overlay import label_of
from edge_vision.core.printable import printable
from edge_vision.core.redaction import redact_url
from edge_vision.evaluate.live.pipeline_process import PipelineProcess
from edge_vision.evaluate.live.run_record import ReceivedDetections, RunRecord
from edge_vision.offline.provenance import hash_of, machine, versions
from edge_vision.source.uri import source_kind


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


def summarise(record: RunRecord, process: PipelineProcess, source: str, complete: bool) -> dict[str, Any]:
    """summary.json: the request, the results, their cost. An unknown figure is null."""
    status = record.statuses.get("detector", {})
    first_s, kind = record.first_detection_s, source_kind(source)
    return {
        "complete": complete,
        "source": redact_url(source),
        "ledger": record.ledger,
        "reasons": record.reasons,
        "detections": sum(len(one.objects) for one in record.detections),
        "labels": dict(label_counts(record).most_common()),
        "age_ms": record.age_ms(),
        "inference_ms": _percentiles(status, "inference_ms"),
        "fps": average_fps(record),
        "first_detection_s": None if first_s is None else first_s - process.started_s,
        "rss_peak_mb": process.peak_mb,
        "rss_steady_mb": process.steady_mb,
        "cpu_s": process.usage.cpu_s,
        "backend": {"requested": _part(status, "requested"), "actual": _part(status, "actual")},
        "fallback_reason": status.get("backend.fallback_reason", ""),
        "model": status.get("model"),
        "model_sha256": status.get("model_sha256"),
        "video_sha256": hash_of(str(kind.target)) if kind.is_file else "unavailable",
        "versions": versions(),
        "machine": machine(),
        "command": [redact_url(one) for one in process.command[1:]],
    }


def label_counts(record: RunRecord) -> Counter[str]:
    """The number of detections by label."""
    return Counter(
        label_of(record.labels, i) for one in record.detections for i in one.objects.class_ids.tolist()
    )


def average_fps(record: RunRecord) -> float | None:
    """Inferred frames per second of media time."""
    stamps = [one.stamp_ns for one in record.detections]
    span_s = (max(stamps) - min(stamps)) / 1e9 if len(stamps) > 1 else 0.0
    return (len(stamps) - 1) / span_s if span_s else None


def _percentiles(status: dict[str, str], name: str) -> dict[str, float] | None:
    found = {p: status.get(f"{name}.{p}", "unavailable") for p in ("p50", "p95", "p99")}
    return None if "unavailable" in found.values() else {p: float(value) for p, value in found.items()}


def _part(status: dict[str, str], which: str) -> dict[str, str]:
    start = f"backend.{which}."
    return {key[len(start) :]: value for key, value in status.items() if key.startswith(start)}


def report_text(summary: dict[str, Any], files: Sequence[Path]) -> str:
    """The results and the next steps as text."""
    ledger, age, actual = summary["ledger"], summary["age_ms"], summary["backend"]["actual"]
    skipped = "".join(
        f", {ledger[fate]} {fate}" for fate in ("gated", "rejected", "superseded", "failed") if ledger[fate]
    )
    labels = (
        ", ".join(f"{n} {printable(label)}" for label, n in list(summary["labels"].items())[:5]) or "nothing"
    )
    lines = [
        f"{ledger['received']} frames received: {ledger['inferred']} inferred{skipped}, "
        f"{ledger['in_flight']} in flight.",
        f"Detected: {labels}.",
        f"{summary['model']} on {actual.get('backend', 'unknown')}, {actual.get('device', 'unknown')}"
        f" (requested: {summary['backend']['requested'].get('backend', 'unknown')}).",
        f"Age of the detections: p50 {age['p50']:.0f} ms, p95 {age['p95']:.0f} ms, p99 {age['p99']:.0f} ms.",
        f"First detection {summary['first_detection_s']:.1f} s after the start; memory peak "
        f"{_number(summary['rss_peak_mb'])} MB; CPU {_number(summary['cpu_s'])} s.",
    ]
    if summary["fallback_reason"]:
        lines.insert(3, f"Fallback: {summary['fallback_reason']}")
    return "\n".join([*lines, "", "Results:", *(f"  {file}" for file in files), "", *_next_steps(summary)])


def _number(value: float | None) -> str:
    return "unavailable" if value is None else f"{value:.0f}"


def _next_steps(summary: dict[str, Any]) -> list[str]:
    installed = "openvino" in summary["versions"]
    running = summary["backend"]["actual"].get("backend", "")
    other = "BACKEND=onnxruntime" if running.startswith("openvino") else "BACKEND=openvino"
    note = "" if installed or other != "BACKEND=openvino" else "     (make installs it)"
    return [
        "Next:",
        "  make demo SOURCE=clip.mp4     your own video, or a camera: SOURCE=/dev/video0, rtsp://...",
        f"  make demo {other}{note}     the same on another runtime",
        "  python -m edge_vision.nodes.cli pipeline --help     the pipeline without the demo; see README.md",
    ]
