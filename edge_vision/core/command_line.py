"""Shared by the commands: help with examples, numbers in a range, errors and Ctrl-C as exit codes."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable
from typing import Any

from edge_vision.core.printable import printable_error
from edge_vision.errors import EdgeVisionError, UsageError


def with_examples(description: str, examples: str) -> dict[str, Any]:
    """Arguments of a parser whose help ends with the examples and exit codes, with their line breaks."""
    return {
        "description": description,
        "epilog": examples,
        "formatter_class": argparse.RawDescriptionHelpFormatter,
    }


def complete_help(parser: argparse.ArgumentParser, commands: Any) -> argparse.ArgumentParser:
    """Add a parser's examples and exit codes to the help of its subcommands that have none of their own."""
    text, codes = str(parser.epilog), str(parser.epilog).partition("exit codes:")
    lines = text.replace("\\\n", "\\\0").split("\n")  # An example may continue on the next line.
    for name, one in commands.choices.items():
        own = one.epilog or ""
        if "examples:" not in own:
            called = f" {parser.prog.split()[-1]} {name} "
            found = [line.replace("\0", "\n") for line in lines if called in f"{line} "]
            own = "\n".join(["examples:", *found]) + "\n"
        if "exit codes:" not in own:
            own += "\n" + "".join(codes[1:])
        one.epilog, one.formatter_class = own, argparse.RawDescriptionHelpFormatter
    return parser


def number_type(accepts: Callable[[float], bool], expected: str) -> Callable[[str], float]:
    """The type of an argument that is a number. expected: for the message."""

    def number(text: str) -> float:
        value = float(text)
        if not accepts(value):
            raise argparse.ArgumentTypeError(f"expected {expected}, got {text}")
        return value

    return number


duration_s = number_type(lambda value: 0 < value < 1e6, "seconds above 0")


def run_command(
    options: argparse.Namespace, prefix: str, stopped: str, misuse: tuple[type[EdgeVisionError], ...] = ()
) -> int:
    """The exit code of `options.run(options)`; 1 for an error, 2 for UsageError and `misuse`, 130 for Ctrl-C.

    prefix: of the error's message. stopped: printed after Ctrl-C.
    """
    # `edge-vision` ends at once on SIGINT until here; from now on, temporary files and child processes are
    # cleaned up first.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return int(options.run(options))
    except EdgeVisionError as error:
        print(f"{prefix}: {printable_error(error)}", file=sys.stderr)
        return 2 if isinstance(error, (UsageError, *misuse)) else 1
    except KeyboardInterrupt:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
