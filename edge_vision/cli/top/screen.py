"""What fits on the screen: the list of cameras, one of them in full, and what to do where nothing comes."""

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
from edge_vision.cli.top.drawing import camera_lines, camera_row
from edge_vision.core.printable import printable

REDRAW_S = 1.0
# A pipeline that is up is heard within a second; discovery may take three.
PATIENCE_S = 4.0
KEYS = "q quit  left/right camera  up/down scroll"


class RosGraph(Protocol):
    """What is known of ROS: nodes/diagnostics_listener.py."""

    @property
    def domain(self) -> int:
        """The ROS domain that is listened in."""

    @property
    def publishers(self) -> list[str]:
        """The nodes that publish /diagnostics."""


def nothing_came(
    board: Board, wanted: str, waited_s: float, domain: int, publishers: Sequence[str]
) -> list[str]:
    """Why there may be nothing to see, and what to do; lines."""
    names = [camera.name for camera in board.cameras]
    if wanted and names:
        return [f"no pipeline in {wanted}, but in {', '.join(names)}: --camera takes one of these"]
    reach = os.environ.get("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    listening = f"on ROS domain {domain}, discovery range {reach}"
    who = ", ".join(publishers) or "a node"
    if board.messages:
        return [
            f"/diagnostics comes from {who}, but none of it is of edge_vision, {listening}",
            "Is its diagnostics node running and active?  ros2 lifecycle get /diagnostics",
        ]
    if publishers:
        return [
            f"{who} publishes /diagnostics, but nothing came for {waited_s:.0f} s, {listening}",
            "Is it active?  ros2 lifecycle get /diagnostics",
        ]
    return [
        f"nobody publishes /diagnostics {listening} (looked for {waited_s:.0f} s)",
        "Is a pipeline running?    ros2 launch edge_vision pipeline.launch.py, or make demo",
        "In the same domain?       ROS_DOMAIN_ID must be the pipeline's; make demo has 87",
        "On another machine?       ROS_AUTOMATIC_DISCOVERY_RANGE must not be LOCALHOST on either",
    ]


def once_lines(board: Board, wanted: str, now_s: float) -> list[RenderableType]:
    """All cameras in full, or the one that is wanted."""
    lines: list[RenderableType] = []
    for camera in board.cameras:
        if wanted in ("", camera.name):
            lines += [Text(""), Text(f"camera {camera.name}", "bold"), *camera_lines(camera, now_s)]
    return lines[1:]


def write_svg(console: Console, path: Path) -> None:
    """Write what a recording console has printed. The file names no address to fetch a font from."""
    text = console.export_svg(title="python -m edge_vision top")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", text, flags=re.DOTALL), "utf-8")


class Screen:
    """The live picture on the whole terminal. Use it as a context, as often as one likes."""

    def __init__(self, board: Board, wanted: str, graph: RosGraph, console: Console | None = None) -> None:
        self._board, self._wanted, self._graph = board, wanted, graph
        self._console = console or Console(highlight=False)
        self._chosen = wanted
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
        names = [camera.name for camera in self._board.cameras]
        if key in ("up", "down"):
            self._scroll = max(0, self._scroll + (1 if key == "down" else -1))
        elif key in ("left", "right") and names:
            step = 1 if key == "right" else -1
            at = names.index(self._chosen) + step if self._chosen in names else 0
            self._chosen, self._scroll = names[at % len(names)], 0
        self._drawn = ()

    def draw(self) -> None:
        """Draw anew where something came, or the last picture is a second old."""
        state = (self._board.messages, int(time.monotonic() / REDRAW_S), self._console.size)
        if self._live and state != self._drawn:
            self._drawn = state
            self._live.update(self.picture(time.monotonic()), refresh=True)

    def picture(self, now_s: float) -> RenderableType:
        """As many lines as the terminal has: the cameras, and the chosen one from where it is scrolled to."""
        width, height = self._console.size
        head = self._head(now_s)
        options = self._console.options.update(width=width, height=None)
        body = self._console.render_lines(Group(*self._body(now_s)), options, pad=False)
        room = max(1, height - len(head) - 1)
        self._scroll = min(self._scroll, max(0, len(body) - room))
        shown = body[self._scroll : self._scroll + room]
        segments = [segment for line in shown for segment in (*line, Segment.line())]
        below = len(body) - self._scroll - len(shown)
        more = f"  ({below} more lines below)" if below else ""
        blank = [Text("")] * (room - len(shown))
        return Group(*head, Segments(segments), *blank, Text((KEYS + more)[: width - 1], "reverse"))

    def _head(self, now_s: float) -> list[RenderableType]:
        cameras = self._board.cameras
        names = [camera.name for camera in cameras]
        if self._chosen not in names and not self._wanted and names:
            self._chosen = names[0]
        clock = time.strftime("%H:%M:%S")
        title = f"edge_vision top  {clock}  ROS domain {self._graph.domain}"
        if len(cameras) == 1:
            title += f"  camera {names[0]}"
        lines: list[RenderableType] = [Text(title, "bold", no_wrap=True)]
        if len(cameras) > 1:
            rows = [camera_row(camera, now_s, camera.name == self._chosen) for camera in cameras]
            for row in rows:
                row.no_wrap, row.overflow = True, "ellipsis"
            lines += rows
        return lines

    def _body(self, now_s: float) -> list[RenderableType]:
        chosen = [camera for camera in self._board.cameras if camera.name == self._chosen]
        if chosen:
            return list(camera_lines(chosen[0], now_s))
        waited_s = now_s - self._since_s
        if waited_s < PATIENCE_S:
            return [Text("waiting for /diagnostics ...")]
        why = nothing_came(self._board, self._wanted, waited_s, self._graph.domain, self._graph.publishers)
        return [Text(printable(line)) for line in why]
