"""The checks as text."""

from __future__ import annotations

import os
import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from edge_vision import __version__
from edge_vision.cli.doctor.check import ERROR, OK, UNKNOWN, WARN, Check, counts, exit_code
from edge_vision.core.printable import printable
from edge_vision.core.redaction import redact_text

_COLOURS = {OK: "32", WARN: "33", ERROR: "31", UNKNOWN: "35"}
_LEVEL_WIDTH = len(UNKNOWN)
_NARROWEST = 40
_FIGURES = (
    ("rate_in_hz", "{:.1f} Hz in"),
    ("age_ms.p95", "age {:.0f} ms (p95)"),
    ("cpu_percent", "CPU {:.0f} %"),
    ("rss_mb", "{:.0f} MB"),
    ("cpu.percent", "CPU {:.0f} %"),
    ("memory.percent", "memory {:.0f} %"),
)


def lines(checks: Sequence[Check], terminal: bool = False) -> Iterator[str]:
    """All checks, grouped by part. terminal: wrapped and coloured; otherwise one line per check, for grep."""
    width = max(_NARROWEST, shutil.get_terminal_size().columns) if terminal else 0
    colour = terminal and not os.environ.get("NO_COLOR")
    yield f"edge_vision doctor {__version__}"
    for part, group in groupby(checks, lambda check: check.part):
        yield f"\n{part}"
        members = [_printable(check) for check in group]
        name_width = max(len(check.name) for check in members)
        for check in members:
            yield from _entry(check, name_width, width, colour)
    yield f"\n{_summary(checks)}"


def _shown(text: str) -> str:
    return printable(redact_text(text))


def _printable(check: Check) -> Check:
    """The check with secrets of addresses masked and control characters escaped."""
    return replace(check, name=_shown(check.name), text=_shown(check.text))


def _entry(check: Check, name_width: int, width: int, colour: bool) -> Iterator[str]:
    level = check.level.ljust(_LEVEL_WIDTH)
    if colour:
        level = f"\033[{_COLOURS[check.level]}m{level}\033[0m"
    indent = 2 + _LEVEL_WIDTH + 2 + name_width + 2
    text = f"{check.text}{_figures(check.values)}"
    body = textwrap.wrap(text, width - indent, break_on_hyphens=False) if width > indent + 20 else [text]
    yield f"  {level}  {check.name.ljust(name_width)}  {body[0]}"
    yield from (" " * indent + line for line in body[1:])


def _figures(values: Mapping[str, object]) -> str:
    """The main figures of a status on /diagnostics, whose values are strings."""
    figures = []
    for key, template in _FIGURES:
        try:
            figures.append(template.format(float(str(values[key]))))
        except (KeyError, ValueError):
            continue
    return f" [{', '.join(figures)}]" if figures else ""


def _summary(checks: Sequence[Check]) -> str:
    number, code = counts(checks), exit_code(checks)
    parts = [
        f"{number[OK]} OK",
        f"{number[WARN]} warning{'s' * (number[WARN] != 1)}",
        f"{number[ERROR]} error{'s' * (number[ERROR] != 1)}",
    ]
    if number[UNKNOWN]:
        parts.append(f"{number[UNKNOWN]} not checked")
    return f"{', '.join(parts)}: exit code {code}"
