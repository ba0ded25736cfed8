"""Plots as SVG text, drawn by hand: no library, and nothing that a page would have to fetch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_W, _H, _LEFT, _BOTTOM, _TOP, _RIGHT = 760, 380, 62, 46, 16, 16
COLORS = {"onnxruntime": "#1764ab", "openvino": "#c2410c", "litert": "#4d7c0f"}
_OTHER = "#555"
_RADIUS = 6

Row = Mapping[str, Any]


def pareto(rows: Sequence[Row], front: Sequence[str], chosen: str | None, least: float) -> str:
    """Time against agreement of the measured rows; the front is joined, the chosen one ringed.

    least: the agreement that was asked for, a dashed line.
    """
    rows = [row for row in rows if "relative" in row]
    if not rows:
        return ""
    xs, ys = [row["relative"] for row in rows], [row["agreement"] for row in rows]
    x_axis = _axis(0.0, max(xs) * 1.06, _LEFT, _W - _RIGHT)
    y_axis = _axis(max(0.0, min([*ys, least]) - 0.03), 1.01, _H - _BOTTOM, _TOP)
    parts = [_grid(x_axis, y_axis)]
    y = y_axis(least)
    parts.append(f'<line x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="bound"/>')
    on_front = sorted((row for row in rows if row["id"] in front), key=lambda row: row["relative"])
    points = " ".join(f"{x_axis(r['relative']):.1f},{y_axis(r['agreement']):.1f}" for r in on_front)
    parts.append(f'<polyline points="{points}" class="front"/>')
    for row in rows:
        parts.append(_mark(row, x_axis(row["relative"]), y_axis(row["agreement"]), row["id"] == chosen))
    legend = "".join(
        f'<circle cx="{_LEFT + 14 + 130 * i}" cy="{_H - 8}" r="5" fill="{color}"/>'
        f'<text x="{_LEFT + 24 + 130 * i}" y="{_H - 4}">{name}</text>'
        for i, (name, color) in enumerate(COLORS.items())
    )
    return f'<svg viewBox="0 0 {_W} {_H}" role="img">{"".join(parts)}{legend}</svg>'


class _axis:
    """A linear scale from values to pixels."""

    def __init__(self, low: float, high: float, start_px: float, end_px: float) -> None:
        self.low, self.high, self._start, self._end = low, high, start_px, end_px

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        step = 10.0 ** math.floor(math.log10(self.high - self.low))
        while (self.high - self.low) / step < 5:
            step /= 2
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _grid(x_axis: _axis, y_axis: _axis) -> str:
    lines = []
    for value in x_axis.ticks():
        x = x_axis(value)
        lines.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_H - _BOTTOM}" class="grid"/>')
        lines.append(f'<text x="{x:.1f}" y="{_H - _BOTTOM + 15}" text-anchor="middle">{value:.3g}</text>')
    for value in y_axis.ticks():
        y = y_axis(value)
        lines.append(f'<line x1="{_LEFT}" x2="{_W - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        lines.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    lines.append(
        f'<text x="{_W - _RIGHT}" y="{_H - _BOTTOM + 30}" text-anchor="end">time / baseline</text>'
        f'<text x="14" y="{_TOP}" transform="rotate(-90 14 {_TOP})" text-anchor="end">agreement</text>'
    )
    return "".join(lines)


def _mark(row: Row, x: float, y: float, chosen: bool) -> str:
    color = COLORS.get(row["backend"], _OTHER)
    title = escape(f"{row['id']}: {row['p50_ms']:.1f} ms, agreement {row['agreement']:.3f}, {row['status']}")
    ring = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS + 5}" class="chosen"/>' if chosen else ""
    label = escape(f"{row['precision']} {row['size'].split('x')[0]}")
    return (
        f'<g>{ring}<circle cx="{x:.1f}" cy="{y:.1f}" r="{_RADIUS}" fill="{color}" fill-opacity="0.8">'
        f"<title>{title}</title></circle>"
        f'<text x="{x + 9:.1f}" y="{y - 7:.1f}" class="small">{label}</text></g>'
    )


def sensitivity(layers: Sequence[Mapping[str, Any]], kept: Sequence[str]) -> str:
    """A bar for each layer in the graph's order: the SQNR in dB of the outputs when it alone is int8."""
    if not layers:
        return ""
    ordered = sorted(layers, key=lambda layer: layer["place"])
    highest = max(layer["sqnr_db"] for layer in ordered)
    height, width = 170, max(300, 9 * len(ordered))
    axis = _axis(min(0.0, *(layer["sqnr_db"] for layer in ordered)), highest * 1.05, height - 20, 8)
    bars = []
    for i, layer in enumerate(ordered):
        y = axis(layer["sqnr_db"])
        title = escape(f"{layer['name']}: {layer['sqnr_db']:.1f} dB, agreement {layer['agreement']:.3f}")
        kind = "kept" if layer["name"] in kept else "bar"
        bars.append(
            f'<rect x="{30 + 9 * i}" y="{y:.1f}" width="7" height="{height - 20 - y:.1f}" class="{kind}">'
            f"<title>{title}</title></rect>"
        )
    ticks = "".join(
        f'<text x="26" y="{axis(v) + 4:.1f}" text-anchor="end">{v:.0f}</text>' for v in axis.ticks()
    )
    words = f'<text x="30" y="{height - 4}">first layer</text>'
    words += f'<text x="{30 + width}" y="{height - 4}" text-anchor="end">last layer</text>'
    return f'<svg viewBox="0 0 {width + 36} {height}" role="img">{ticks}{"".join(bars)}{words}</svg>'
