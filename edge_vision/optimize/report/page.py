"""report.html: one file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import load_bundle
from edge_vision.core.printable import printable_lines
from edge_vision.optimize.pareto import UNMEASURED
from edge_vision.optimize.report import explain, pictures, plot
from edge_vision.optimize.report.report_file import write_text

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 1080px; margin: 24px auto; padding: 0 16px }
table { border-collapse: collapse; font-size: 13px } td, th { padding: 3px 8px; border-bottom: 1px solid #ddd;
text-align: right } td:first-child, td:last-child, th:first-child, th:last-child { text-align: left }
tr.chosen { background: #e6f4e6 } tr.failed { color: #888 } svg { width: 100%; height: auto; font-size: 12px }
.grid { stroke: #e4e4e4 } .bound { stroke: #b00; stroke-dasharray: 5 4 } .front { fill: none; stroke: #888 }
circle.chosen { fill: none; stroke: #15803d; stroke-width: 2.5 } .small { font-size: 9px; fill: #555 }
.bar { fill: #93b4d8 } .kept { fill: #c2410c } figure { margin: 8px 0 } figure img { width: 49% }
.wide { overflow-x: auto } figcaption, .note { color: #555; font-size: 13px }
"""
_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("p50 ms", "p50_ms", ".2f"),
    ("p95", "p95_ms", ".2f"),
    ("p99", "p99_ms", ".2f"),
    ("of parent", "ratio_to_parent", ".2f"),
    ("of baseline", "relative", ".2f"),
    ("agreement", "agreement", ".3f"),
    ("score shift", "score_shift", "+.3f"),
    ("RSS MB", "rss_mb", ".0f"),
    ("cold s", "cold_start_s", ".1f"),
)


def write_page(folder: Path, report: Mapping[str, Any]) -> Path:
    """Write report.html beside report.json. Raises DiskFull."""
    parts = [
        f"<h1>{escape(report['model']['name'])} on {escape(report['device']['cpu'])}</h1>",
        f"<p><b>{escape(explain.verdict(report))}</b></p>",
        "<h2>Time and agreement</h2>",
        _plot(report),
        "<h2>All that was measured</h2>",
        _table(report),
        _sensitivity(report),
        *_pictures(folder, report),
        "<h2>How to read it</h2>",
        _METHOD,
        f"<pre>{escape(json.dumps(_facts(report), indent=1))}</pre>",
    ]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>optimize</title><style>{_STYLE}</style>"
    path = folder / "report.html"
    write_text(path, printable_lines(head + "\n".join(parts) + "</html>\n"))
    return path


_METHOD = """<p class=note>Each row was measured in a fresh process, in turns with its parent: the fp32 model
in the same runtime with as many threads. A time is that of one look at a picture: preparation, inference and
reading the outputs. <i>of parent</i> is the median of the rounds' ratios; <i>of baseline</i> multiplies them
up to the first row, and is what is decided by, as the machine's speed drifts. <i>agreement</i> is
with the fp32 model at its native size, not with the truth: F1 of boxes of the same class with IoU 0.5 or more
for a detector, share of equal best classes for a classifier; <i>where sure</i> is the same on those
pictures alone on which the fp32 model's best class leads by 0.1, and decides nothing. RSS is the peak of the
process, with Python, OpenCV and the runtime in it.</p>"""


def _plot(report: Mapping[str, Any]) -> str:
    least = 1.0 - report["settings"]["max_accuracy_loss"]
    return plot.pareto(report["rows"], report["decision"]["front"], report["chosen"], least)


def _table(report: Mapping[str, Any]) -> str:
    columns = _COLUMNS
    if any(row.get("agreement_sure") is not None for row in report["rows"]):
        columns = (*columns, ("where sure", "agreement_sure", ".3f"))
    if any(row.get("map") is not None for row in report["rows"]):
        columns = (*columns, ("mAP", "map", ".3f"), ("mAP .5", "map50", ".3f"))
    heads = ["candidate", *(name for name, _, _ in columns), "file MB", "why"]
    lines = [f"<tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr>"]
    for row in report["rows"]:
        if row["status"] in UNMEASURED:
            text = f"<td>{escape(row['id'])}</td><td colspan={len(heads) - 1}>{escape(row['reason'])}</td>"
            lines.append(f"<tr class=failed>{text}</tr>")
            continue
        cells = [format(row[key], spec) for _, key, spec in columns] + [f"{row['bytes'] / 1e6:.1f}"]
        text = "".join(f"<td>{cell}</td>" for cell in cells)
        why = escape(f"{row['status']}: {row['reason']}")
        lines.append(f"<tr class={row['status']}><td>{escape(row['id'])}</td>{text}<td>{why}</td></tr>")
    return f"<div class=wide><table>{''.join(lines)}</table></div>"


def _sensitivity(report: Mapping[str, Any]) -> str:
    found = report["sensitivity"]
    if not found.get("layers"):
        return "".join(f"<p class=note>{escape(note)}</p>" for note in report["notes"])
    layers, kept = found["layers"], found["kept"]
    worst = "; ".join(f"{one['name']} {one['sqnr_db']:.1f} dB" for one in layers[:5])
    tries = "; ".join(f"{one['kept']} in fp32: {one['agreement']:.3f}" for one in found["search"])
    ranks = {layer["place"]: rank for rank, layer in enumerate(layers, 1)}
    ends = (
        f"Of {len(layers)} layers the first is number {ranks[0]}, the last number {ranks[len(layers) - 1]}."
    )
    return (
        "<h2>Sensitivity of the layers</h2><p class=note>Each bar: signal to noise in dB of the outputs when "
        f"that layer alone is int8; lower is worse. {ends} Most sensitive: {escape(worst)}. Search for an "
        f"agreement of {found['bound']:.3f} on the calibration clip: {escape(tries)}. Dark: in fp32 in the "
        f"mixed variant, {len(kept)}.</p>{plot.sensitivity(layers, kept)}"
    )


def _pictures(folder: Path, report: Mapping[str, Any]) -> list[str]:
    """Of the chosen or nearest row, and of the naive int8 one."""
    shown = [report["chosen"] or report["decision"]["nearest"]]
    shown += [row["id"] for row in report["rows"] if row["precision"] == "int8_default" and "relative" in row]
    files = sorted((folder / "pictures" / "evaluation").glob("*.png"))
    reference = folder / "found" / f"{report['baseline']}.npz"
    labels = load_bundle(f"{folder / 'source'}/").labels
    parts = ["<h2>What differs</h2>"]
    for name in dict.fromkeys(filter(None, shown)):
        found = folder / "found" / f"{name}.npz"
        if not (found.is_file() and reference.is_file() and files):
            continue
        compared = pictures.compare(report["model"]["task"], files, found, reference, labels)
        parts.append(f"<h3>{escape(name)}</h3>")
        parts += _figures(compared) or ["<p class=note>Nothing: it finds what the fp32 model finds.</p>"]
    return parts


def _figures(compared: Sequence[pictures.PictureComparison]) -> list[str]:
    return [
        f'<figure><img src="data:image/jpeg;base64,{one.reference}" alt="fp32"> '
        f'<img src="data:image/jpeg;base64,{one.found}" alt="candidate">'
        f"<figcaption>left fp32, right the candidate; {escape(one.text)}</figcaption></figure>"
        for one in compared
    ]


def _facts(report: Mapping[str, Any]) -> dict[str, Any]:
    return {name: report[name] for name in ("edge_vision", "device", "settings", "hashes", "notes")}
