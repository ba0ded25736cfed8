"""The screen: the list of pipelines, the selected one in full, and advice if nothing is received."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.segment import Segment, Segments
from rich.text import Text

from edge_vision.cli.top.board import Board
from edge_vision.cli.top.drawing import pipeline_lines, pipeline_row
from edge_vision.core.printable import printable

REDRAW_S = 1.0
# A running pipeline reports within a second; discovery may take three.
DISCOVERY_S = 4.0
KEYS = "q quit  left/right pipeline  up/down scroll"


class RosGraph(Protocol):
    """Implemented by nodes/observers/diagnostics_listener.py."""

    @property
    def domain(self) -> int:
        """The ROS domain."""

    @property
    def publishers(self) -> list[str]:
        """The nodes that publish /diagnostics."""


def advice(
    board: Board, namespace: str, waited_s: float, domain: int, publishers: Sequence[str]
) -> list[str]:
    """Why there is nothing to show, and what to do, as lines."""
    namespaces = [one.namespace for one in board.pipelines]
    if namespace and namespaces:
        return [
            f"no pipeline in {namespace}, but in {', '.join(namespaces)}: set --namespace to one of these"
        ]
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    scope = f"on ROS domain {domain}, discovery range {reach}"
    publisher = ", ".join(publishers) or "a node"
    if board.message_count:
        return [
            f"/diagnostics is published by {publisher}, but not by edge_vision, {scope}",
            "Is its diagnostics node running and active?  ros2 lifecycle get /diagnostics",
        ]
    if publishers:
        return [
            f"{publisher} publishes /diagnostics, but nothing was received for {waited_s:.0f} s, {scope}",
            "Is it active?  ros2 lifecycle get /diagnostics",
        ]
    return [
        f"/diagnostics has no publisher {scope} (waited for {waited_s:.0f} s)",
        "Is a pipeline running?    ros2 launch edge_vision pipeline.launch.py, or make demo",
        "In the same domain?       ROS_DOMAIN_ID must be the pipeline's; make demo uses 87",
        "On another machine?       ROS_AUTOMATIC_DISCOVERY_RANGE must not be LOCALHOST on either",
    ]


def once_lines(board: Board, namespace: str, now_s: float) -> list[RenderableType]:
    """All pipelines in full, or only the one in this namespace."""
    lines: list[RenderableType] = []
    for one in board.pipelines:
        if namespace in ("", one.namespace):
            lines += [Text(""), Text(f"pipeline {one.namespace}", "bold"), *pipeline_lines(one, now_s)]
    return lines[1:]


def write_svg(console: Console, path: Path) -> None:
    """Write the output of a recording console, without the address of a web font."""
    text = console.export_svg(title="python -m edge_vision top")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL), "utf-8")


class Screen:
    """The live picture on the whole terminal: a context manager that can be entered repeatedly."""

    def __init__(self, board: Board, namespace: str, graph: RosGraph, console: Console | None = None) -> None:
        self._board, self._namespace, self._graph = board, namespace, graph
        self._console = console or Console(highlight=False)
        self._selected = namespace
        self._scroll = 0
        self._since_s = time.monotonic()
        self._drawn: tuple[object, ...] = ()
        self._live: Live | None = None

    def __enter__(self) -> Screen:
        self._drawn = ()
        self._live = Live(console=self._console, screen=True, auto_refresh=False, redirect_stdout=False)
        self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live:
            self._live.stop()
            self._live = None

    def press(self, key: str) -> None:
        """Act on a key."""
        names = [one.namespace for one in self._board.pipelines]
        if key in ("up", "down"):
            self._scroll = max(0, self._scroll + (1 if key == "down" else -1))
        elif key in ("left", "right") and names:
            step = 1 if key == "right" else -1
            at = names.index(self._selected) + step if self._selected in names else 0
            self._selected, self._scroll = names[at % len(names)], 0
        self._drawn = ()

    def draw(self) -> None:
        """Redraw after a message, or if the last picture is a second old."""
        state = (self._board.message_count, int(time.monotonic() / REDRAW_S), self._console.size)
        if self._live and state != self._drawn:
            self._drawn = state
            self._live.update(self.picture(time.monotonic()), refresh=True)

    def picture(self, now_s: float) -> RenderableType:
        """As many lines as the terminal has: the list of pipelines, and the selected one as scrolled."""
        width, height = self._console.size
        head = self._head(now_s)
        options = self._console.options.update(width=width, height=None)
        body = self._console.render_lines(Group(*self._body(now_s)), options, pad=False)
        body_height = max(1, height - len(head) - 1)
        self._scroll = min(self._scroll, max(0, len(body) - body_height))
        shown = body[self._scroll : self._scroll + body_height]
        segments = [segment for line in shown for segment in (*line, Segment.line())]
        below = len(body) - self._scroll - len(shown)
        more = f"  ({below} more lines below)" if below else ""
        blank = [Text("")] * (body_height - len(shown))
        return Group(*head, Segments(segments), *blank, Text((KEYS + more)[: width - 1], "reverse"))

    def _head(self, now_s: float) -> list[RenderableType]:
        pipelines = self._board.pipelines
        names = [one.namespace for one in pipelines]
        if self._selected not in names and not self._namespace and names:
            self._selected = names[0]
        clock = time.strftime("%H:%M:%S")
        title = f"edge_vision top  {clock}  ROS domain {self._graph.domain}"
        if len(pipelines) == 1:
            title += f"  pipeline {names[0]}"
        lines: list[RenderableType] = [Text(title, "bold", no_wrap=True)]
        if len(pipelines) > 1:
            rows = [pipeline_row(one, now_s, one.namespace == self._selected) for one in pipelines]
            for row in rows:
                row.no_wrap, row.overflow = True, "ellipsis"
            lines += rows
        return lines

    def _body(self, now_s: float) -> list[RenderableType]:
        selected = [one for one in self._board.pipelines if one.namespace == self._selected]
        if selected:
            return list(pipeline_lines(selected[0], now_s))
        waited_s = now_s - self._since_s
        if waited_s < DISCOVERY_S:
            return [Text("waiting for /diagnostics ...")]
        lines = advice(self._board, self._namespace, waited_s, self._graph.domain, self._graph.publishers)
        return [Text(printable(line)) for line in lines]
