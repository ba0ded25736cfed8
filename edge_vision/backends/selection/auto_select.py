"""`backend: auto`: the fastest backend of this device whose outputs agree with the reference.

Measured once per bundle and device in a child process, so that a runtime that crashes, hangs or leaks does
not affect this one. The result is kept in the cache, and is measured again when the bundle, the request, a
runtime, a driver or the processor changes. A result from a busy machine is provisional: the next process
measures again and pools the rounds. `edge-vision backends measure` does so in advance.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

from edge_vision.backends.base import AutoSelection, BackendRequest
from edge_vision.backends.registry import REFERENCE, available_backends
from edge_vision.backends.selection.backend_timing import MIN_SQNR_DB, BackendTiming, Timings, measure
from edge_vision.backends.selection.timing_cache import (
    read_timings,
    timing_file,
    timings_from_json,
    timings_to_json,
    write_timings,
)
from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.core.printable import printable_error, printable_output
from edge_vision.errors import BackendError, EdgeVisionError

if TYPE_CHECKING:
    from edge_vision.bundles.store import Bundle

TIME_LIMIT_S = 900.0
"""Of the measurement: an engine may have to be built first."""
_MEASURED_HERE: set[Path] = set()
"""Cache files that this process has written: a provisional result is measured again by a later process."""


class MeasurementKilled(BackendError):
    """The measuring process was killed by a signal, or exceeded its time limit."""


def choose(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> AutoSelection:
    """The order in which to try these installed backends. The first name is the reference.

    Uses kept timings or measures, which takes some seconds. If that fails, the order is unchanged and the
    reason says why.
    """
    if len(names) < 2:
        reason = f"{names[0]} is the only one installed" if names else "none is installed"
        return AutoSelection(tuple(names), reason)
    file = timing_file(bundle, names, request)
    kept = read_timings(file, names)
    if kept and (not kept.provisional or file in _MEASURED_HERE):
        return _selection(kept, "measured before")
    try:
        return measure_now(bundle, names, request, kept)
    except MeasurementKilled as error:
        alone = _measure_each_alone(bundle, names, request)
        return _selection(alone, f"each was measured alone, as {error}", refuse_failed=True)
    except EdgeVisionError as error:
        if kept:
            return _selection(kept, f"measured before; not measured again: {error}")
        return AutoSelection(tuple(names), f"not measured: {error}")


def check_agreement(bundle: Bundle, name: str, request: BackendRequest) -> None:
    """Raise BackendError if the outputs of a backend differ from the reference's on this device.

    Passes if the reference cannot run here.
    """
    if name == REFERENCE or available_backends().get(REFERENCE, ""):
        return
    names = [REFERENCE, name]
    file = timing_file(bundle, names, request)
    timings = read_timings(file, names)
    if timings is None:
        try:
            timings = measure_in_child(bundle, names, request)
        except MeasurementKilled:
            # Either may have caused it: if this one survives alone, there is no reference to compare with.
            measure_in_child(bundle, [name], request)
            return
        write_timings(file, timings)
    reference, other = sorted(timings.rows, key=lambda row: row.backend == name)
    if not reference.failure and not other.failure and not other.agrees:
        raise BackendError(
            f"the outputs of {name} differ from those of {REFERENCE}: {other.sqnr_db:.1f} dB, expected "
            f"{MIN_SQNR_DB:.0f} or more; choose another precision or backend"
        )


def measure_now(
    bundle: Bundle, names: Sequence[str], request: BackendRequest, kept: Timings | None = None
) -> AutoSelection:
    """Measure, pool with a provisional result, and keep it. Raises BackendError if that is not possible."""
    file, timings = timing_file(bundle, names, request), measure_in_child(bundle, names, request)
    timings = timings.pooled(kept) if kept else timings
    _MEASURED_HERE.add(file)
    trouble = write_timings(file, timings)
    when = "measured now" if timings.attempts == 1 else f"measured now, {timings.attempts} times in all"
    when += f"; not kept, measured again at the next start: {trouble}" if trouble else ""
    return _selection(timings, when, refuse_failed=True)


def _selection(timings: Timings, when: str, refuse_failed: bool = False) -> AutoSelection:
    if timings.provisional:
        when += f", provisional, measured again at a later start: {timings.busy}"
    failed = {row.backend: row.failure for row in timings.rows if row.failure} if refuse_failed else {}
    return AutoSelection(tuple(row.backend for row in timings.ranked()), f"{timings}; {when}", failed)


def measure_in_child(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> Timings:
    """Raises MeasurementKilled, or BackendError if the child reports an error."""
    folder = f"{bundle.folder.absolute()}{os.sep}"
    order = {"bundle": folder, "names": list(names), "request": astuple(request)}
    try:
        done = subprocess.run(
            python_command("edge_vision.backends.selection.auto_select", json.dumps(order)),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=child_environment(),
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise MeasurementKilled(f"the measuring process did not end within {TIME_LIMIT_S:.0f} s") from None
    except OSError as error:
        raise BackendError(f"the measuring process cannot be started: {error}") from None
    if done.returncode < 0:
        raise MeasurementKilled(f"the measuring process {describe_exit(done.returncode)}")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        output = done.stderr.strip().splitlines()
        last = output[-1] if output else "no output"
        raise BackendError(f"the measuring process {describe_exit(done.returncode)}: {last}")
    return timings_from_json(lines[-1])


def _measure_each_alone(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> Timings:
    """Each backend in its own process, after one killed the shared one. Outputs are not compared."""
    rows: list[BackendTiming] = []
    for name in names:
        try:
            rows += measure_in_child(bundle, [name], request).rows
        except BackendError as error:
            rows.append(BackendTiming(name, failure=str(error)))
    return Timings(tuple(rows))


@printable_output(stdout=False)
def main() -> int:
    """The measuring process: `python -m edge_vision.backends.selection.auto_select ORDER`, ORDER in JSON.
    Writes the timings as one line of JSON."""
    from edge_vision.backends.loading import load_on
    from edge_vision.bundles.store import load_bundle

    order = json.loads(sys.argv[1])
    try:
        bundle, request = load_bundle(order["bundle"]), BackendRequest(*order["request"])
        timings = measure(order["names"], lambda name: load_on(bundle, name, request), bundle)
    except EdgeVisionError as error:
        print(printable_error(error), file=sys.stderr)
        return 1
    print(timings_to_json(timings))
    return 0


if __name__ == "__main__":
    sys.exit(main())
