"""The report on schedules: a block of lines per clip, the verdict, and the same as Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from statistics import median
from typing import Any

from edge_vision.core.printable import printable
from edge_vision.evaluate.tables import markdown_table, screen_line

Entry = Mapping[str, Any]
HEADINGS = (
    "chain",
    "inferred",
    "CPU per 1000",
    "share",
    "process CPU",
    "recall 100 ms",
    "95 % lower",
    "delay p95",
    "frame F1",
    "live F1",
    "fidelity",
    "ghosts",
)
_WIDTHS = [max(8, len(one)) for one in HEADINGS[1:-1]]
_NAME_WIDTH = 38
_MARKS = {True: "pass", False: "FAIL", None: "not measured"}


def heading() -> str:
    """The heading of the lines on the screen."""
    return screen_line(HEADINGS[0], HEADINGS[1:-1], _WIDTHS, HEADINGS[-1], _NAME_WIDTH)


def lines(name: str, clip: Entry) -> list[str]:
    """The block of a clip: a title, then a line per chain."""
    rows = _rows(clip)
    return [
        title(name, clip),
        *(screen_line(f"  {row[0]}", row[1:-1], _WIDTHS, row[-1], _NAME_WIDTH) for row in rows),
    ]


def title(name: str, clip: Entry) -> str:
    """The name of a clip with its rate, length, events, noise ceiling and share of quiet frames."""
    kind = "constructed, " if clip["constructed"] else ""
    return (
        f"{name}: {kind}{clip['fps_hz']:.3g} fps ({clip['fps_class']}), {clip['frames']} frames, "
        f"{clip['events']} events, {len(clip['cuts'])} cuts, noise ceiling "
        f"{_text(clip['noise_ceiling'], '.3f')}, quiet {clip['quiet_share']:.0%}"
    )


def _rows(clip: Entry) -> list[list[str]]:
    """A row per chain; where one was played live, what the process spends on anything but its chain."""
    chains = clip["chains"]
    whole = chains["every_frame"]
    rows = [_row(chain, entry) for chain, entry in chains.items()]
    if whole["process_cpu_s_per_1000"] is None:
        return rows
    rest_s = whole["process_cpu_s_per_1000"] - whole["cpu_s_per_1000"]
    filled = {"chain": "every_frame, without detector", "process CPU": f"{rest_s:.2f} s"}
    return [*rows, [filled.get(heading, "") for heading in HEADINGS]]


def _row(chain: str, entry: Entry) -> list[str]:
    interval = entry.get("interval_frames")
    return [
        chain + (f", 1 in {interval}" if interval and interval > 1 else ""),
        f"{entry['inferred_share']:.1%}",
        f"{entry['cpu_s_per_1000']:.2f} s",
        f"{entry['cpu_share']:.2f}",
        _text(entry["process_cpu_s_per_1000"], ".2f", " s"),
        _text(entry["recall_100ms"], ".1%"),
        _text(entry["recall_low95"], ".1%"),
        _text(entry["delay_ms_p95"], ".0f", " ms"),
        _text(entry["frame_f1"], ".3f"),
        _text((entry.get("live") or {}).get("frame_f1"), ".3f"),
        _text(entry["fidelity"], ".3f"),
        str(entry["ghosts"]),
    ]


def _text(value: float | None, form: str, unit: str = "") -> str:
    return "n/a" if value is None else f"{value:{form}}{unit}"


def headline(content: Mapping[str, Any]) -> str:
    """The verdict, one line per target, with the medians before it."""
    clips = [clip for clip in content["clips"].values() if not clip["constructed"]]
    if not clips:
        return "no real clip was evaluated"
    names = list(clips[0]["chains"])
    shares = [f"{name} {median(clip['chains'][name]['cpu_share'] for clip in clips):.2f}" for name in names]
    skipped = [f"left out: {name}: {why}" for name, why in content["skipped"].items()]
    width = max(len(one["text"]) for one in content["verdict"])
    checks = [
        f"{_MARKS[one['met']]:<13}{one['preset']:<10}{one['text']:<{width}}  {one['value']}"
        for one in content["verdict"]
    ]
    counts = [sum(one["met"] is met for one in content["verdict"]) for met in (True, False, None)]
    total = f"{counts[0]} targets met, {counts[1]} missed, {counts[2]} not measured"
    median_line = f"median CPU share of {len(clips)} real clips: {', '.join(shares)}"
    return "\n".join([*skipped, *checks, median_line, total])


def markdown(content: Mapping[str, Any]) -> str:
    """One table per clip, then the verdict."""
    tables = [
        f"{printable(title(name, clip))}\n\n" + markdown_table(HEADINGS, _rows(clip))
        for name, clip in content["clips"].items()
    ]
    return "\n".join([*tables, markdown_table(_VERDICT, _verdict_rows(content))])


_VERDICT = ("target", "preset", "result", "figures")


def _verdict_rows(content: Mapping[str, Any]) -> list[list[str]]:
    return [[one["text"], one["preset"], _MARKS[one["met"]], one["value"]] for one in content["verdict"]]


def page(content: Mapping[str, Any]) -> str:
    """report.html: a self-contained page."""
    verdict_table = _html_table(_VERDICT, _verdict_rows(content))
    clips = "".join(
        f"<h2>{escape(printable(title(name, clip)))}</h2>" + _html_table(HEADINGS, _rows(clip))
        for name, clip in content["clips"].items()
    )
    return f"{_HEAD}<h1>Schedules on real clips</h1>{verdict_table}{clips}"


def _html_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in headings)
    body = "".join(
        f"<tr class='{'missed' if _MARKS[False] in row else ''}'>"
        + "".join(f"<td>{escape(printable(cell))}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


_HEAD = (
    "<!doctype html><meta charset='utf-8'><title>edge_vision: schedules</title><style>"
    "body{font:14px sans-serif;margin:2em}table{border-collapse:collapse}"
    "td,th{padding:2px 10px;text-align:right;border-bottom:1px solid #ddd}"
    "td:first-child,th:first-child{text-align:left}h2{font-size:1em}.missed{color:#b00}</style>"
)
