"""Pipelines as lines of text. Colours repeat what the text states."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from rich.table import Table
from rich.text import Text

from edge_vision.cli.top.board import SILENT_S, PipelineStatus
from edge_vision.core.diagnostic_status import StatusEntry

STYLES = {"OK": "green", "WARN": "yellow", "ERROR": "bold red", "STALE": "magenta"}
FATES = ("inferred", "gated", "rejected", "superseded", "failed", "in_flight")
UNKNOWN = "n/a"
# Width of the first column, with its padding.
_LABEL = 11


def pipeline_lines(pipeline: PipelineStatus, now_s: float) -> Iterator[Text | Table]:
    """All statuses of a pipeline, the cause first."""
    yield from _output(pipeline, now_s)
    yield _stages(pipeline)
    detector, gate = pipeline.part("detector"), pipeline.part("gate")
    last = detector if "ledger.received" in detector.values else gate
    rows = [("ledger", _ledger(last)), ("reasons", _reasons(last)), ("gate", _gate(gate))]
    rows.append(("miss rate", _miss_rate(gate)))
    for stage in ("detector", "cascade"):
        rows += _model(stage, pipeline.part(stage))
    rows += [("process", _process(one)) for one in pipeline.processes]
    if "system" in pipeline.parts:
        rows += _system(pipeline.part("system"))
    yield _labelled(rows)
    for name, one in pipeline.problems:
        yield Text(f"{one.level_name} {name}: {one.message}", STYLES.get(one.level_name, ""))


def pipeline_row(pipeline: PipelineStatus, now_s: float, selected: bool) -> Text:
    """A pipeline in one line of the list."""
    detector, output = pipeline.part("detector"), pipeline.part("output")
    first = pipeline.part("gate") if "gate" in pipeline.parts else detector
    marker = Text("> " if selected else "  ")
    rates = f"{_hz(first, 'rate_in_hz')} > {_hz(detector, 'rate_out_hz')} Hz"
    text = f"{pipeline.namespace:<14} {rates}  age p95 {_ms(detector, 'age_ms.p95')} ms  "
    silent_s = now_s - pipeline.received_s
    if silent_s > SILENT_S:
        return marker + Text(text) + Text(f"silent for {silent_s:.0f} s", STYLES["STALE"])
    level = StatusEntry("", level=pipeline.level).level_name
    cause = output.text("cause")
    return (
        marker + Text(text) + Text(f"{level} {'' if cause in ('', 'none') else cause}", STYLES.get(level, ""))
    )


def _output(pipeline: PipelineStatus, now_s: float) -> Iterator[Text]:
    """Whether detections are published; if not, the cause and its remedy."""
    silent_s, output = now_s - pipeline.received_s, pipeline.part("output")
    if silent_s > SILENT_S:
        text = f"STALE  no report for {silent_s:.0f} s: has the pipeline ended?"
        yield Text(text + " The figures below are old.", STYLES["STALE"])
    elif "output" in pipeline.parts:
        since_s = output.number("since_s") or 0.0
        since = f" (for {since_s:.0f} s)" if since_s >= 1 else ""
        yield Text(f"{output.level_name}  {output.message}{since}", STYLES.get(output.level_name, ""))


def _stages(pipeline: PipelineStatus) -> Table:
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold", expand=True)
    table.add_column("stage", width=_LABEL - 1, no_wrap=True)
    for title in ("Hz in", "out", "p50 ms", "p95", "p99"):
        table.add_column(title, justify="right", width=max(6, len(title)), no_wrap=True)
    table.add_column("state", ratio=1, no_wrap=True, overflow="ellipsis")
    for name, one in pipeline.nodes:
        figures = [_hz(one, "rate_in_hz"), _hz(one, "rate_out_hz"), *_percentiles(one, "process_ms")]
        state = Text(f"{one.level_name} {one.message}", STYLES.get(one.level_name, ""))
        table.add_row(name, *figures, state)
    table.add_row(
        "age", "", "", *_percentiles(pipeline.part("detector"), "age_ms"), "from the stamp to the output"
    )
    return table


def _ledger(one: StatusEntry) -> str:
    counts = {fate: one.text(f"ledger.{fate}") or UNKNOWN for fate in ("received", *FATES)}
    sum_of_fates = " + ".join(f"{fate.replace('_', ' ')} {counts[fate]}" for fate in FATES)
    wrong = " DOES NOT BALANCE" if one.text("ledger.balanced") == "False" else ""
    return f"received {counts['received']} = {sum_of_fates}{wrong}"


def _reasons(one: StatusEntry) -> str:
    """Frames by fate and reason."""
    parts = []
    for fate in FATES:
        start = f"ledger.{fate}."
        counts = [f"{key[len(start) :]} {n}" for key, n in one.values.items() if key.startswith(start)]
        if counts:
            parts.append(f"{fate}: {', '.join(counts)}")
    return "; ".join(parts) or "none"


def _gate(one: StatusEntry) -> str:
    if not one.text("last_reason"):
        return UNKNOWN
    blind = f"{_number(one, 'blind_ms')} ms since a frame passed"
    off = "" if one.text("enabled") != "False" else "off, "
    return f"{off}camera {one.text('gate.camera')}, last {one.text('last_reason')}, {blind}"


def _miss_rate(one: StatusEntry) -> str:
    """The audit's estimate: the share of skipped frames with an object that was missed."""
    rate, low, high = (one.number(f"audit.miss_rate{end}") for end in ("", "_low", "_high"))
    if rate is None or low is None or high is None:
        return f"{UNKNOWN}: no skipped frame was audited yet"
    seen = f"{one.text('audit.missed')} of {one.text('audit.audited')} audited frames"
    opens = ", the audit holds the gate open" if one.text("audit.open") == "True" else ""
    return f"{rate:.1%} (95 %: {low:.1%} to {high:.1%}), {seen}{opens}"


def _model(stage: str, one: StatusEntry) -> Iterator[tuple[str, str]]:
    """Model and backend of a stage, requested and actual; nothing for a cascade that is off."""
    model = one.text("model")
    if stage == "cascade" and model in ("", "off"):
        return
    sha256 = one.text("model_sha256")
    yield ("model" if stage == "detector" else stage), f"{model or UNKNOWN}  sha256 {sha256[:12] or UNKNOWN}"
    requested, actual = (
        {key[len(start) :]: value for key, value in one.values.items() if key.startswith(start)}
        for start in ("backend.requested.", "backend.actual.")
    )
    if actual:
        runs = " ".join(actual.get(name, "?") for name in ("backend", "device", "precision"))
        request = " ".join(requested.get(name, "?") for name in ("backend", "device", "precision"))
        yield "backend", f"{runs} ({actual.get('provider', '?')}), requested {request}"
        yield "fallback", one.text("backend.fallback_reason") or "none"


def _process(one: StatusEntry) -> str:
    pid = one.text("pid") or one.local_name
    if one.number("rss_mb") is None:
        return f"{pid}  {one.message}"
    figures = [
        f"CPU {_number(one, 'cpu_percent')} %",
        f"RSS {_number(one, 'rss_mb')} MB",
        f"{_number(one, 'threads')} threads",
        f"{_number(one, 'fds')} files",
    ]
    return f"{pid}  {'  '.join(figures)}"


def _system(one: StatusEntry) -> Iterator[tuple[str, str]]:
    cores = [key for key in one.values if re.fullmatch(r"cpu\.\d+\.percent", key)]
    each = " ".join(_number(one, key) for key in cores)
    memory = f"memory {_number(one, 'memory.used_mb')} of {_number(one, 'memory.total_mb')} MB"
    swap = f"swap {_number(one, 'swap.percent')} %" if one.text("swap.percent") else f"swap {UNKNOWN}"
    yield "system", f"CPU {_number(one, 'cpu.percent')} % ({each})  {memory}  {swap}"
    figures = [
        ("temperature", _with_unit(one, "temperature_c.max", "C")),
        ("power", _with_unit(one, "power_w", "W", 1)),
        ("per frame", _with_unit(one, "energy_per_inferred_frame_j", "J", 2)),
        ("throttling", one.text("throttling") or UNKNOWN),
        ("GPU", ", ".join(_gpus(one)) or UNKNOWN),
    ]
    yield "", "  ".join(f"{name} {value}" for name, value in figures)


def _gpus(one: StatusEntry) -> Iterator[str]:
    for key in one.values:
        if key.startswith("gpu.") and key.endswith(".percent"):
            start = key[: -len("percent")]
            yield f"{_number(one, key)} % {_with_unit(one, start + 'memory_used_mb', 'MB')}"


def _labelled(rows: Iterable[tuple[str, str]]) -> Table:
    """A grid of labels and texts; long texts wrap in their column."""
    table = Table.grid(padding=(0, 1, 0, 0), pad_edge=False, expand=True)
    table.add_column(width=_LABEL - 1, no_wrap=True)
    table.add_column(ratio=1, overflow="fold")
    for label, text in rows:
        table.add_row(label, Text(text))
    return table


def _percentiles(one: StatusEntry, name: str) -> Sequence[str]:
    return [_ms(one, f"{name}.{p}") for p in ("p50", "p95", "p99")]


def _hz(one: StatusEntry, key: str) -> str:
    return _fixed(one, key, 5, 1)


def _ms(one: StatusEntry, key: str) -> str:
    value = one.number(key)
    return _fixed(one, key, 6, 1 if value is None or abs(value) < 1000 else 0)


def _fixed(one: StatusEntry, key: str, width: int, digits: int) -> str:
    value = one.number(key)
    if value is None:
        return f"{UNKNOWN if key in one.values else '':>{width}}"
    return f"{value:{width}.{digits}f}"


def _number(one: StatusEntry, key: str) -> str:
    value = one.number(key)
    return UNKNOWN if value is None else f"{value:.0f}"


def _with_unit(one: StatusEntry, key: str, unit: str, digits: int = 0) -> str:
    value = one.number(key)
    return UNKNOWN if value is None else f"{value:.{digits}f} {unit}"
