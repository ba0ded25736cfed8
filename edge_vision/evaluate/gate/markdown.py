"""The report's table as Markdown, for a page of documentation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edge_vision.core.printable import printable

HEAD = (
    "| condition | events | recall in 100 ms (95 % lower) | delay p95 (best rival) | frame F1 (best rival) "
    "| calls | worst gap | gate p50, p95 | CPU, every frame = 1 |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
)


def markdown(conditions: Mapping[str, Any], gate: str = "gate") -> str:
    """One row per condition; what missed its target is bold."""
    return HEAD + "".join(_row(name, condition, gate) for name, condition in conditions.items())


def _row(name: str, condition: Mapping[str, Any], gate: str) -> str:
    mine, verdict = condition["methods"][gate], condition["verdict"][gate]

    def cell(key: str, text: str) -> str:
        return f"**{text}**" if verdict[key]["met"] is False else text

    every = condition["methods"]["every_frame"]["cpu_s_per_1000"]
    cells = [
        f"{printable(name)}{'' if condition['constructed'] else ' (clip)'}",
        str(condition["events"]),
        cell("recall_100ms", f"{_share(mine['recall_100ms'])} ({_share(mine['recall_100ms_lower95'])})"),
        cell("delay_ms_p95", f"{_ms(mine['delay_ms_p95'])} ({_rival(verdict['delay_ms_p95'], _ms)})"),
        cell("frame_f1", f"{_f1(mine['frame_f1'])} ({_rival(verdict['frame_f1'], _f1)})"),
        cell("calls_share", _share(mine["calls_share"])),
        cell("worst_gap_ms", _ms(mine["worst_gap_ms"])),
        f"{mine['gate_ms_p50']:.2f}, {mine['gate_ms_p95']:.2f} ms",
        f"{mine['cpu_s_per_1000'] / every:.2f}" if every else "n/a",
    ]
    return f"| {' | '.join(cells)} |\n"


def _rival(check: Mapping[str, Any], form: Any) -> str:
    found = check["rival"]
    return f"{form(found[1])}, {found[0]}" if found else "none"


def _share(value: float | None) -> str:
    return "n/a" if value is None else f"{100 * value:.1f} %"


def _ms(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.0f} ms"


def _f1(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.3f}"
