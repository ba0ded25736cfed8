"""The terminal view from its command line to its last picture."""

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
from edge_vision.core.missing_package import missing_package
from edge_vision.core.printable import printable_error, printable_output

if TYPE_CHECKING:
    from edge_vision.nodes.diagnostics_listener import DiagnosticsListener

# Keys wait for this long at most.
TURN_S = 0.1
# In which each pipeline reports once, and a little.
PERIOD_S = 1.2
_EXAMPLES = """examples:
  python -m edge_vision top                        live; q ends it
  python -m edge_vision top --once                 one picture of all cameras, for scripts
  python -m edge_vision top --camera /front        the pipeline in this namespace
  python -m edge_vision top --once --svg top.svg   the picture as a file too
  ROS_DOMAIN_ID=87 python -m edge_vision top       what `make demo` runs

keys: q quit; left, right (or Tab) another camera; up, down scroll.
exit codes: 0 a picture was shown, 1 nothing came (--once), 2 wrong arguments or no terminal."""


@printable_output(stdout=False)
def main(args: Sequence[str] | None = None) -> int:
    """Run the view. Returns the exit status."""
    argv = list(sys.argv[1:] if args is None else args)
    stop = TerminalSignals()
    options, ros_args = _parse(argv)
    try:
        import rich  # noqa: F401

        from edge_vision.nodes.diagnostics_listener import DiagnosticsListener
    except ModuleNotFoundError as error:
        print(f"top: {missing_package(error)}", file=sys.stderr)
        return 1
    board = Board()
    try:
        listener = DiagnosticsListener(lambda told: board.note(told, time.monotonic()), ["top", *ros_args])
        with listener:
            return (_once if options.once else _live)(options, board, listener, stop)
    except RuntimeError as error:  # A malformed remapping.
        print(f"top: {printable_error(error)}", file=sys.stderr)
        return 2


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and from `--ros-args` on what ROS reads."""
    at = argv.index("--ros-args") if "--ros-args" in argv else len(argv)
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision top",
        description="Shows running pipelines live, from /diagnostics alone: rates, latencies, ages, the "
        "books with reasons, gate, backend, model, processes, the machine, and why nothing is published.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="print one picture and end")
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=6.0,
        metavar="S",
        help="with --once: longest wait in s (default: %(default)g)",
    )
    parser.add_argument("--camera", default="", metavar="NAMESPACE", help="only this pipeline, as in /front")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="with --once: write the picture there too")
    options = parser.parse_args(argv[:at])
    options.camera = f"/{options.camera.strip('/')}" if options.camera else ""
    if options.svg and not options.once:
        parser.error("--svg goes with --once")
    if not options.once and not (sys.stdout.isatty() and os.environ.get("TERM") not in (None, "", "dumb")):
        parser.error("the output is no terminal that can be drawn on: --once prints one picture")
    return options, argv[at:]


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e6:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, got {text}")
    return value


class TerminalSignals:
    """Turns SIGINT and SIGTERM into a wish, and Ctrl-Z into another one; the terminal is put right first."""

    def __init__(self) -> None:
        self.asked = self.pause = False
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._ask)

    def take_pauses(self) -> None:
        """From now on, Ctrl-Z is a wish too."""
        signal.signal(signal.SIGTSTP, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.pause = number == signal.SIGTSTP
        self.asked = self.asked or not self.pause


def _once(
    options: argparse.Namespace, board: Board, listener: DiagnosticsListener, stop: TerminalSignals
) -> int:
    from rich.console import Console

    from edge_vision.cli.top.screen import nothing_came, once_lines, write_svg

    began_s = time.monotonic()
    end_s, whole, told = began_s + options.wait, False, not sys.stderr.isatty()
    while not stop.asked and time.monotonic() < end_s:
        listener.spin(TURN_S)
        # Once a pipeline was heard, the others have one period more.
        if not whole and any(len(camera.parts) > 1 for camera in board.cameras):
            whole, end_s = True, min(end_s, time.monotonic() + PERIOD_S)
        if not told and not whole and time.monotonic() - began_s > 2.0:
            told = True
            print(f"waiting for /diagnostics, {options.wait:g} s at most ...", file=sys.stderr)
    lines = once_lines(board, options.camera, time.monotonic())
    if not lines:
        why = nothing_came(board, options.camera, options.wait, listener.domain, listener.publishers)
        print(
            "\n".join(f"top: {line}" if i == 0 else f"  {line}" for i, line in enumerate(why)),
            file=sys.stderr,
        )
        return 130 if stop.asked else 1
    console = Console(record=bool(options.svg), highlight=False)
    for line in lines:
        console.print(line)
    if options.svg:
        write_svg(console, options.svg)
    return 0


def _live(
    options: argparse.Namespace, board: Board, listener: DiagnosticsListener, stop: TerminalSignals
) -> int:
    from edge_vision.cli.top.screen import Screen
    from edge_vision.cli.top.terminal import Keyboard

    stop.take_pauses()
    screen = Screen(board, options.camera, listener)
    while not stop.asked:
        with Keyboard() as keyboard, screen:
            while not (stop.asked or stop.pause):
                listener.spin(TURN_S)
                for key in keyboard.pressed():
                    stop.asked = stop.asked or key == "q"
                    screen.press(key)
                screen.draw()
        if stop.pause and not stop.asked:
            stop.pause = False
            os.kill(os.getpid(), signal.SIGSTOP)
    return 0
