"""The values that options of `optimize train`, `search` and `auto` may have, checked in one place."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.settings import MIN_IMAGES

_MOST_HOURS, _MOST = 10_000.0, 10_000_000


@dataclass(frozen=True, slots=True)
class OptionRange:
    """expected: for the message."""

    kind: type[int] | type[float]
    expected: str
    accepts: Callable[[float], bool]

    def parsed(self, text: str) -> float:
        """The value of an argument; a type of argparse."""
        try:
            value = self.kind(text)
        except ValueError:
            value = math.nan
        if not self.accepts(value):
            raise argparse.ArgumentTypeError(f"expected {self.expected}, got {text}")
        return value

    def check(self, flag: str, value: float) -> None:
        """Raise OptimizeError for another value."""
        if not self.accepts(value):
            raise OptimizeError(f"{flag}: expected {self.expected}, got {value:g}")


def _whole(least: int) -> OptionRange:
    return OptionRange(int, f"{least} or more", lambda value: value >= least)


def _between(least: int, most: int) -> OptionRange:
    return OptionRange(int, f"{least} to {most}", lambda value: least <= value <= most)


def _up_to(most: float) -> Callable[[float], bool]:
    return lambda value: 0 <= value <= most


_POSITIVE = OptionRange(float, "a number above 0", lambda value: 0 < value < math.inf)
_HOURS = f"at most {_MOST_HOURS:g}"
SHARE_BELOW_1 = OptionRange(float, "0 or more and less than 1", lambda value: 0 <= value < 1)
SHARE_TO_PRUNE = OptionRange(float, "more than 0 and less than 1", lambda value: 0 < value < 1)
SHARE_OF_TIME = OptionRange(float, "a share of the time, more than 0 and at most 1", lambda v: 0 < v <= 1)
SHARED = {"batch": _between(1, 4096), "samples": _between(8, _MOST), "seed": _between(0, 2**32 - 1)}
TRAINING: Mapping[str, OptionRange] = {
    **SHARED,
    "steps": _between(1, _MOST),
    "frames": _between(16, _MOST),
    "judge_frames": _between(8, _MOST),
    "threads": OptionRange(int, "0 to 1024", _up_to(1024)),
    "share": SHARE_BELOW_1,
    "mixed": SHARE_BELOW_1,
    "levels": _whole(0),
    "width": OptionRange(float, "0 to 16", _up_to(16)),
    "depth": OptionRange(int, "1 to 32", lambda value: 1 <= value <= 32),
    "budgets": SHARE_OF_TIME,
    "hours": OptionRange(float, f"0 or more, {_HOURS}", _up_to(_MOST_HOURS)),
}
AUTO: Mapping[str, OptionRange] = {
    **SHARED,
    "images": _whole(MIN_IMAGES),
    "budget_ms": _POSITIVE,
    "max_rss_mb": _POSITIVE,
    "memory_gb": _POSITIVE,
    "measure_s": _POSITIVE,
    "max_accuracy_loss": SHARE_BELOW_1,
    "hours": OptionRange(float, f"more than 0, {_HOURS}", lambda value: 0 < value <= _MOST_HOURS),
}


def check_options(request: Any, ranges: Mapping[str, OptionRange], flags: Mapping[str, str]) -> None:
    """Raise OptimizeError for a field of a request outside of its range. flags: of fields whose option has
    another name."""
    for name, one in ranges.items():
        value = getattr(request, name, None)
        for item in value if isinstance(value, Iterable) else () if value is None else (value,):
            one.check(flags.get(name, f"--{name.replace('_', '-')}"), item)
