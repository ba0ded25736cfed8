"""The doctor from its command line to its exit code."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from edge_vision.cli.doctor.check import ERROR, INSTALLATION, UNKNOWN, Check, document, exit_code
from edge_vision.cli.doctor.text import lines
from edge_vision.core.printable import printable_lines, printable_output

# Imported when used: a package that is missing must not keep the doctor from saying so.
SECTIONS = ("software", "machine", "store", "runtimes", "dds")
DEFAULT_SECONDS = 5.0
COULD_NOT_LOOK = 3
_EXAMPLES = """examples:
  python -m edge_vision doctor                        what runs, and the installation
  python -m edge_vision doctor --running --seconds 3  is the pipeline well?
  python -m edge_vision doctor --install --json       the installation, for a script
  ros2 run edge_vision doctor --namespace /front      the pipeline in this namespace
  ROS_DOMAIN_ID=87 python -m edge_vision doctor       what `make demo` runs

exit codes: 0 all good, 1 warnings, 2 errors, 3 could not look (a package is missing, ROS does not start,
wrong arguments). 2 goes before 3, and 3 before 1. 130 and 143: stopped by a signal.
docs/diagnostics.md describes the JSON."""


class _Stopped(Exception):
    """A signal came."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@printable_output(stdout=False)
def main(args: Sequence[str] | None = None) -> int:
    """RoiPlan, print, and give the exit code."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        options, ros_args = _parse(list(sys.argv[1:] if args is None else args))
        checks = list(_looked(options, ros_args))
    except _Stopped as stopped:
        print("doctor: stopped", file=sys.stderr)
        return 128 + stopped.number
    if options.json:
        print(printable_lines(json.dumps(document(checks), indent=2, ensure_ascii=False)))
    else:
        for line in lines(checks, sys.stdout.isatty()):
            print(line)
    return exit_code(checks)


def _stop(number: int, frame: Any) -> NoReturn:
    raise _Stopped(number)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """argparse ends with 2, which would say that the pipeline is ill."""
        self.print_usage(sys.stderr)
        self.exit(COULD_NOT_LOOK, f"{self.prog}: error: {message}\n")


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and from `--ros-args` on what ROS reads."""
    at = argv.index("--ros-args") if "--ros-args" in argv else len(argv)
    parser = _Parser(
        prog="python -m edge_vision doctor",
        description="A check list of what runs (/diagnostics and the ROS graph) and of the installation "
        "(packages, machine, models, backends, DDS), each with what to do.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--install", action="store_true", help="only the installation")
    what.add_argument("--running", action="store_true", help="only what runs")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--seconds",
        type=_seconds,
        default=DEFAULT_SECONDS,
        metavar="S",
        help="how long to listen to what runs (default: %(default)g)",
    )
    parser.add_argument("--namespace", type=_namespace, help="only this pipeline, as in /front")
    return parser.parse_args(argv[:at]), argv[at:]


def _seconds(text: str) -> float:
    value = float(text)
    if not 1 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"expected 1 to 3600 seconds, got {text}")
    return value


def _namespace(text: str) -> str:
    return "/" + text.strip("/")


def _looked(options: argparse.Namespace, ros_args: list[str]) -> Iterator[Check]:
    if not options.running:
        yield from _installation()
    if not options.install:
        yield from _running(options.seconds, options.namespace, ros_args)


def _installation() -> Iterator[Check]:
    for section in SECTIONS:
        _progress(f"looking at {section}")
        try:
            yield from importlib.import_module(f"edge_vision.cli.doctor.{section}").look()
        except _Stopped:
            raise
        except Exception as error:  # Of one section: the others are looked at all the same.
            yield Check(INSTALLATION, section, UNKNOWN, f"could not look: {_told(error)}")


def _running(seconds: float, namespace: str | None, ros_args: list[str]) -> Iterator[Check]:
    from edge_vision.cli.doctor.dds import domain
    from edge_vision.cli.doctor.running import checks, unseen
    from edge_vision.cli.doctor.software import node_failures, ros_failures

    _progress("looking for ROS 2")
    given = domain(os.environ)
    # Some of what is wrong ends the process from within ROS: here one that is started to find out.
    failures = ros_failures() or ([given.text] if given.level == ERROR else node_failures(ros_args))
    if failures:
        yield unseen("; ".join(failures))
        return
    _progress(f"listening for {seconds:g} s")
    try:
        from edge_vision.nodes.system_probe import observe_system

        yield from checks(observe_system(seconds, ros_args), namespace)
    except _Stopped:
        raise
    except Exception as error:  # A domain that there is not, a middleware that does not start.
        yield unseen(_told(error))


def _told(error: Exception) -> str:
    from edge_vision.nodes.cli import remedy

    text = " ".join(str(error).split()) or type(error).__name__
    return f"{text}. {remedy(error.name or '')}" if isinstance(error, ModuleNotFoundError) else text


def _progress(text: str) -> None:
    print(f"doctor: {text}", file=sys.stderr, flush=True)
