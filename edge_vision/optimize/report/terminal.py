"""The report as text for a terminal."""

from __future__ import annotations

from edge_vision.core.printable import printable
from edge_vision.optimize.agreement import CONFIDENT_MARGIN
from edge_vision.optimize.report.report_file import StudyReport
from edge_vision.optimize.results import CandidateResult, only_classes
from edge_vision.optimize.source import SHIPPED
from edge_vision.optimize.trials.measure import Measurement

_HEAD = "{:38} {:>7} {:>7} {:>7} {:>6} {:>7}{} {:>5} {:>6} {:>5}  {}"


def table(results: tuple[CandidateResult, ...]) -> str:
    """One line for each candidate below those of names and units: times, ratio to the parent's, with labels
    AP at IoU 0.5, memory, file, cold start."""
    labelled = any(one.measurement is not None and one.measurement.mean_ap is not None for one in results)
    ap50 = f"{'AP50':>6}" if labelled else ""
    head = _HEAD.format(
        "candidate", "p50", "p95", "p99", "ratio", "agreem.", ap50, "RSS", "file", "cold", "status"
    )
    ap50 = f"{'':>6}" if labelled else ""
    units = _HEAD.format("", "ms", "ms", "ms", "", "", ap50, "MB", "MB", "s", "").rstrip()
    return "\n".join([head, units, *(printable(_line(result)) for result in results)])


def _line(result: CandidateResult) -> str:
    if result.measurement is None:
        return f"{result.id:38} {result.status}: {result.reason}"
    timing, measured = result.measurement.timing, result.measurement
    ap50 = "" if measured.mean_ap is None else f"{measured.mean_ap.map50:6.3f}"
    return (
        f"{result.id:38} {timing.p50_ms:7.2f} {timing.p95_ms:7.2f} {timing.p99_ms:7.2f} "
        f"{timing.ratio_to_parent:6.2f} {result.agreement:7.3f}{ap50} {measured.rss_mb:5.0f} "
        f"{result.file_bytes / 1e6:6.1f} {measured.cold_start_s:5.1f}  {result.status}: {result.reason}"
        f"{only_classes(result)}"
    )


def verdict(report: StudyReport) -> str:
    """The chosen candidate, or the nearest one and the bounds that it misses."""
    decision = report.decision
    state = "" if report.complete else " (incomplete study)"
    if decision.chosen:
        chosen = report.result(decision.chosen)
        p50_ms = chosen.measured.timing.p50_ms
        return (
            f"chosen: {chosen.id}{state}, {p50_ms:.1f} ms, agreement {chosen.agreement:.3f}"
            f"{only_classes(chosen)}"
        )
    if decision.nearest:
        missed = "; ".join(decision.misses)
        return f"no candidate satisfies the bounds{state}; the nearest is {decision.nearest}: {missed}"
    return f"no candidate can be chosen{state}: none ran without a defect"


def explanation(result: CandidateResult) -> str:
    """Everything known about one candidate."""
    lines = [f"{result.id}: {result.status}", f"  why: {result.reason}"]
    if result.detail:
        lines.append(f"  in detail: {result.detail}")
    if result.trained == SHIPPED:
        lines.append("  graph: the model's own int8, unmodified")
    if result.classes:
        lines.append(f"  detects only {', '.join(result.classes)}, and is compared on these")
    if result.measurement is not None:
        lines += _measurement_lines(result, result.measurement)
    return "\n".join(lines)


def _measurement_lines(result: CandidateResult, measured: Measurement) -> list[str]:
    timing, agreed, actual = measured.timing, measured.agreement, measured.actual
    (low, high), (fast, slow) = timing.p50_band_ms, timing.ratio_band
    where = f"; measured on {measured.machine}" if measured.machine else ""
    energy = "unavailable" if timing.energy_mj is None else f"{timing.energy_mj:.1f} mJ"
    lines = [
        f"  pass: p50 {timing.p50_ms:.2f} ms ({low:.2f} to {high:.2f}), p95 {timing.p95_ms:.2f}, p99 "
        f"{timing.p99_ms:.2f}, of {timing.passes} passes; inference {timing.inference_p50_ms:.2f} ms, CPU "
        f"time {timing.cpu_p50_ms:.2f} ms, energy {energy}",
        f"  against {result.parent}: {timing.ratio_to_parent:.3f} of its time ({fast:.3f} to {slow:.3f}), "
        f"inference alone {timing.inference_ratio:.3f}",
        f"  agreement with the fp32 native model: {agreed.value:.4f} ({agreed.metric}), {agreed.lost} lost, "
        f"{agreed.gained} gained, of {agreed.total}; score shift {agreed.score_shift:+.4f}",
        f"  peak memory {measured.rss_mb:.0f} MB, cold start {measured.cold_start_s:.2f} s, file "
        f"{result.file_bytes} bytes",
        f"  runs on {actual['backend']} {actual['version']}, {actual['device']}, precision "
        f"{actual['precision']}, threads {actual['threads']}{where}",
    ]
    if agreed.confident_value is not None:
        lines.append(
            f"  agreement on the {agreed.confident_images} images with a score margin of "
            f"{CONFIDENT_MARGIN:g} or more: {agreed.confident_value:.4f} (informational only)"
        )
    if measured.mean_ap is not None:
        lines.append(
            f"  against the labels: mAP {measured.mean_ap.map:.3f}, at IoU 0.5 {measured.mean_ap.map50:.3f}"
        )
    return lines + _int8_lines(result, measured)


def _int8_lines(result: CandidateResult, measured: Measurement) -> list[str]:
    lines = []
    if result.graph and result.graph.quantization:
        found = result.graph.quantization
        lines.append(
            f"  int8: {found.layers_quantized} of {found.layers} layers quantized, layers run as int8 "
            f"{found.layers_run_as_int8}, weights {found.weights} up to {found.largest_weight}, per channel "
            f"in {found.weights_per_channel} layers; {result.graph.why}"
        )
    if measured.saturation_db is not None:
        lines.append(f"  saturation: {measured.saturation_db:.2f} dB worse than exact arithmetic")
    return lines
