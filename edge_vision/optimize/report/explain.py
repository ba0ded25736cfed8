"""What a report says, in words for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_vision.bundles.schema import nearest
from edge_vision.core.printable import printable
from edge_vision.optimize.agreement import SURE
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.pareto import UNMEASURED

_HEAD = "{:38} {:>7} {:>7} {:>7} {:>6} {:>7} {:>5} {:>6} {:>5}  {}".format(
    "candidate", "p50", "p95", "p99", "ratio", "agrees", "RSS", "file", "cold", "status"
)


def table(report: Mapping[str, Any]) -> str:
    """One line per row: times in ms, ratio to the parent's time, memory and file in MB, cold start in s."""
    return "\n".join([_HEAD, *(printable(_line(row)) for row in report["rows"])])


def _line(row: Mapping[str, Any]) -> str:
    if row["status"] in UNMEASURED:
        told = "" if row["status"] == "built" else "failed: "
        return f"{row['id']:38} {told}{row['reason']}"
    return (
        f"{row['id']:38} {row['p50_ms']:7.2f} {row['p95_ms']:7.2f} {row['p99_ms']:7.2f} "
        f"{row['ratio_to_parent']:6.2f} {row['agreement']:7.3f} {row['rss_mb']:5.0f} "
        f"{row['bytes'] / 1e6:6.1f} {row['cold_start_s']:5.1f}  {row['status']}: {row['reason']}"
    )


def verdict(report: Mapping[str, Any]) -> str:
    """The chosen one, or the nearest and what it misses."""
    decision = report["decision"]
    state = "" if report["complete"] else " (not all was measured)"
    if report["chosen"]:
        row = next(row for row in report["rows"] if row["id"] == report["chosen"])
        return f"chosen: {row['id']}{state}, {row['p50_ms']:.1f} ms, agreement {row['agreement']:.3f}"
    if decision["nearest"]:
        missed = "; ".join(decision["misses"])
        return f"nothing holds the bounds{state}; the nearest is {decision['nearest']}: {missed}"
    return f"nothing can be chosen{state}: no candidate ran and was sound"


def candidate(report: Mapping[str, Any], name: str) -> str:
    """All that is known of one row. Raises OptimizeError for an unknown one."""
    rows = {row["id"]: row for row in report["rows"]}
    if name not in rows:
        raise OptimizeError(f"expected one of {', '.join(rows)}, got {name!r}{nearest(name, rows)}")
    row = rows[name]
    lines = [f"{name}: {row['status']}", f"  why: {row['reason']}"]
    if row["status"] in UNMEASURED:
        return "\n".join(lines)
    band, ratio = row["p50_band_ms"], row["ratio_band"]
    lines += [
        f"  a look: p50 {row['p50_ms']:.2f} ms ({band[0]:.2f} to {band[1]:.2f}), p95 {row['p95_ms']:.2f}, "
        f"p99 {row['p99_ms']:.2f}, of {row['looks']}; its inference {row['inference_p50_ms']:.2f} ms, its "
        f"processor time {row['cpu_p50_ms']:.2f} ms",
        f"  against {row['parent']}: {row['ratio_to_parent']:.3f} of its time ({ratio[0]:.3f} to "
        f"{ratio[1]:.3f}); the inference alone {row['inference_ratio']:.3f}",
        f"  agreement with the fp32 native model {row['agreement']:.4f}: {row['lost']} lost, "
        f"{row['gained']} gained, of {row['of']}; score shift {row['score_shift']:+.4f}",
        f"  peak memory {row['rss_mb']:.0f} MB, cold start {row['cold_start_s']:.2f} s, file {row['bytes']} "
        f"bytes, energy a look: {_energy(row['energy_mj'])}",
        f"  runs on {row['actual']['backend']} {row['actual']['version']}, {row['actual']['device']}, "
        f"precision {row['effective_precision']}, threads {row['actual']['threads']}",
    ]
    if row["agreement_sure"] is not None:
        lines.append(
            f"  on the {row['sure_of']} pictures of which the fp32 model is sure (its best class leads by "
            f"{SURE:g}) it is {row['agreement_sure']:.4f}; what is decided by is all pictures"
        )
    if row.get("map") is not None:
        lines.append(f"  against the labels: mAP {row['map']:.3f}, at IoU 0.5 {row['map50']:.3f}")
    if row.get("quantized"):
        lines.append(f"  int8 as it came out: {_listed(row['quantized'])}; {row['graph_why']}")
    if "saturation_db" in row:
        lines.append(f"  saturation: {row['saturation_db']:.2f} dB worse than exact arithmetic")
    return "\n".join(lines)


def _energy(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.1f} mJ"


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in values.items())
