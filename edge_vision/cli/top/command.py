"""`edge-vision top`: command line, one printed picture or the live view."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_vision.cli.top.board import Board
from edge_vision.core.command_line import duration_s, with_examples
from edge_vision.core.missing_package import missing_package
from edge_vision.core.printable import printable_error, printable_output

if TYPE_CHECKING:
    from edge_vision.nodes.observers.diagnostics_listener import DiagnosticsListener

# Longest delay of a key.
TURN_S = 0.1
# Every pipeline reports within this period.
PERIOD_S = 1.2
_EXAMPLES = """examples:
  edge-vision top                        live; q quits
  edge-vision top --once                 print all pipelines once, for scripts
  edge-vision top --namespace /front     the pipeline in this namespace
  edge-vision top --once --svg top.svg   write the picture to a file as well
  ROS_DOMAIN_ID=87 edge-vision top       the pipeline of `make demo`

keys: q quit; left, right (or Tab) another pipeline; up, down scroll.
exit codes: 0 a picture was shown, 1 nothing was received (--once) or a package is missing, 2 wrong arguments
or no terminal, 130 stopped by a signal before the first picture (--once)"""


@printable_output(stdout=False)
def main(args: Sequence[str] | None = None) -> int:
    """Run the view. Returns the exit code."""
    argv = list(sys.argv[1:] if args is None else args)
    signals = TerminalSignals()
    options, ros_args = _parse(argv)
    try:
        import rich  # noqa: F401

        from edge_vision.nodes.observers.diagnostics_listener import DiagnosticsListener
    except ModuleNotFoundError as error:
        print(f"top: {missing_package(error)}", file=sys.stderr)
        return 1
    board = Board()
    try:
        listener = DiagnosticsListener(
            lambda statuses: board.update(statuses, time.monotonic()), ["top", *ros_args]
        )
        with listener:
            return (_once if options.once else _live)(options, board, listener, signals)
    except RuntimeError as error:  # A malformed remapping.
        print(f"top: {printable_error(error)}", file=sys.stderr)
        return 2


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options of the view, and the arguments from `--ros-args` on."""
    at = argv.index("--ros-args") if "--ros-args" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="edge-vision top",
        **with_examples(
            "Show running pipelines live, from /diagnostics alone: rates, latencies, ages, the frame "
            "accounting, gate, backend, model, processes, machine, and why nothing is published.",
            _EXAMPLES,
        ),
    )
    parser.add_argument("--once", action="store_true", help="print one picture and exit")
    parser.add_argument(
        "--wait",
        type=duration_s,
        default=6.0,
        metavar="S",
        help="with --once: wait this long at most, in s (default: %(default)g)",
    )
    parser.add_argument(
        "--namespace", default="", help="show only the pipeline in this namespace, e.g. /front"
    )
    parser.add_argument(
        "--svg", type=Path, metavar="FILE", help="with --once: write the picture to this file as well"
    )
    options = parser.parse_args(argv[:at])
    options.namespace = f"/{options.namespace.strip('/')}" if options.namespace else ""
    if options.svg and not options.once:
        parser.error("--svg needs --once")
    if not options.once and not (sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")):
        parser.error("the output is not a terminal: --once prints one picture")
    return options, argv[at:]


class TerminalSignals:
    """Records SIGINT, SIGTERM, SIGHUP and Ctrl-Z, so that the terminal is restored before they act."""

    def __init__(self) -> None:
        self.stop_requested = self.pause_requested = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._record)

    def handle_pauses(self) -> None:
        """Record Ctrl-Z from now on."""
        signal.signal(signal.SIGTSTP, self._record)

    def _record(self, number: int, frame: Any) -> None:
        self.pause_requested = number == signal.SIGTSTP
        self.stop_requested = self.stop_requested or not self.pause_requested


def _once(
    options: argparse.Namespace, board: Board, listener: DiagnosticsListener, signals: TerminalSignals
) -> int:
    from rich.console import Console

    from edge_vision.cli.top.screen import advice, once_lines, write_svg

    _receive(board, listener, signals, options.wait)
    lines = once_lines(board, options.namespace, time.monotonic())
    if not lines:
        first, *more = advice(board, options.namespace, options.wait, listener.domain, listener.publishers)
        print("\n  ".join([f"top: {first}", *more]), file=sys.stderr)
        return 130 if signals.stop_requested else 1
    console = Console(record=bool(options.svg), highlight=False)
    for line in lines:
        console.print(line)
    if options.svg:
        write_svg(console, options.svg)
    return 0


def _receive(board: Board, listener: DiagnosticsListener, signals: TerminalSignals, wait_s: float) -> None:
    """Wait for the first full report, then one more period for those of other pipelines."""
    start_s = time.monotonic()
    end_s, received, announced = start_s + wait_s, False, not sys.stderr.isatty()
    while not signals.stop_requested and time.monotonic() < end_s:
        listener.spin(TURN_S)
        if not received and any(len(one.parts) > 1 for one in board.pipelines):
            received, end_s = True, min(end_s, time.monotonic() + PERIOD_S)
        if not announced and not received and time.monotonic() - start_s > 2.0:
            announced = True
            print(f"waiting for /diagnostics, {wait_s:g} s at most ...", file=sys.stderr)


def _live(
    options: argparse.Namespace, board: Board, listener: DiagnosticsListener, signals: TerminalSignals
) -> int:
    from edge_vision.cli.top.screen import Screen
    from edge_vision.cli.top.terminal import Keyboard

    signals.handle_pauses()
    screen = Screen(board, options.namespace, listener)
    while not signals.stop_requested:
        with Keyboard() as keyboard, screen:
            while not (signals.stop_requested or signals.pause_requested):
                listener.spin(TURN_S)
                for key in keyboard.pressed():
                    signals.stop_requested = signals.stop_requested or key == "q"
                    screen.press(key)
                screen.draw()
        if signals.pause_requested and not signals.stop_requested:
            signals.pause_requested = False
            os.kill(os.getpid(), signal.SIGSTOP)
    return 0
