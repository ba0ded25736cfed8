"""`edge-vision doctor`: command line, checks, exit code."""

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
from edge_vision.core.command_line import number_type, with_examples
from edge_vision.core.missing_package import missing_package
from edge_vision.core.printable import printable_lines, printable_output

# Imported when used, so that a missing package is reported by its check and does not end the doctor.
SECTIONS = ("software", "machine", "store", "runtimes", "dds")
DEFAULT_SECONDS = 5.0
WRONG_ARGUMENTS = 3
_EXAMPLES = """examples:
  edge-vision doctor                        the running system and the installation
  edge-vision doctor --running --seconds 3  only the running system, observed for 3 s
  edge-vision doctor --install --json       only the installation, for a script
  ros2 run edge_vision doctor --namespace /front      the pipeline in this namespace
  ROS_DOMAIN_ID=87 edge-vision doctor       the pipeline of `make demo`

exit codes: 0 all OK, 1 warnings, 2 errors, 3 a check could not run (a package is missing, ROS does not start)
or wrong arguments, 130 and 143 stopped by a signal. 2 takes precedence over 3, and 3 over 1.
docs/doctor.md describes the JSON."""


class _Stopped(Exception):
    """SIGINT or SIGTERM was received."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@printable_output(stdout=False)
def main(args: Sequence[str] | None = None) -> int:
    """Run the checks and print them. Returns the exit code."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _stop)
        options, ros_args = _parse(list(sys.argv[1:] if args is None else args))
        checks = list(_checks(options, ros_args))
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
        """Exit with 3: argparse's 2 would mean that a check has failed."""
        self.print_usage(sys.stderr)
        self.exit(WRONG_ARGUMENTS, f"{self.prog}: error: {message}\n")


def _parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The doctor's own options, and the arguments from `--ros-args` on."""
    at = argv.index("--ros-args") if "--ros-args" in argv else len(argv)
    parser = _Parser(
        prog="edge-vision doctor",
        **with_examples(
            "Check the running system (/diagnostics and the ROS graph) and the installation "
            "(packages, machine, models, backends, DDS). Each problem is reported with its remedy.",
            _EXAMPLES,
        ),
    )
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--install", action="store_true", help="check only the installation")
    part.add_argument("--running", action="store_true", help="check only the running system")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--seconds",
        type=number_type(lambda value: 1 <= value <= 3600, "1 to 3600 seconds"),
        default=DEFAULT_SECONDS,
        metavar="S",
        help="observe the running system for this long (default: %(default)g)",
    )
    parser.add_argument(
        "--namespace", type=_namespace, help="check only the pipeline in this namespace, e.g. /front"
    )
    return parser.parse_args(argv[:at]), argv[at:]


def _namespace(text: str) -> str:
    return "/" + text.strip("/")


def _checks(options: argparse.Namespace, ros_args: list[str]) -> Iterator[Check]:
    if not options.running:
        yield from _installation()
    if not options.install:
        yield from _running(options.seconds, options.namespace, ros_args)


def _installation() -> Iterator[Check]:
    for section in SECTIONS:
        _progress(f"checking {section}")
        try:
            yield from importlib.import_module(f"edge_vision.cli.doctor.{section}").checks()
        except _Stopped:
            raise
        except Exception as error:  # A failing section does not stop the others.
            yield Check(INSTALLATION, section, UNKNOWN, f"could not be checked: {_sentence(error)}")


def _running(seconds: float, namespace: str | None, ros_args: list[str]) -> Iterator[Check]:
    from edge_vision.cli.doctor.dds import domain
    from edge_vision.cli.doctor.running import checks, not_observed
    from edge_vision.cli.doctor.software import node_failures, ros_failures

    _progress("starting ROS 2")
    domain_check = domain(os.environ)
    # Some faults make ROS end its process, so a child process starts a node first.
    failures = ros_failures() or (
        [domain_check.text] if domain_check.level == ERROR else node_failures(ros_args)
    )
    if failures:
        yield not_observed("; ".join(failures))
        return
    _progress(f"observing for {seconds:g} s")
    try:
        from edge_vision.nodes.observers.system_probe import observe_system

        yield from checks(observe_system(seconds, ros_args), namespace)
    except _Stopped:
        raise
    except Exception as error:  # An invalid domain, a middleware that does not start.
        yield not_observed(_sentence(error))


def _sentence(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return missing_package(error)
    return " ".join(str(error).split()) or type(error).__name__


def _progress(text: str) -> None:
    print(f"doctor: {text}", file=sys.stderr, flush=True)
