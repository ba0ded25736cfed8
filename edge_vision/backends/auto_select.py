"""`backend: auto`: the fastest runtime of this device that computes what the reference does.

Measured once per bundle and device, in a process of its own: a runtime that crashes or hangs there takes
nothing down, and what was measured leaves no memory behind. The result is kept in the cache, and is measured
anew when the bundle, the request, a runtime, a driver or the processor is another one.

    python -m edge_vision.backends.auto_select BUNDLE [--precision fp16] [--threads 2] [--device auto]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from edge_vision.backends.base import AutoSelection, BackendRequest, Session
from edge_vision.backends.engine_cache import write_file
from edge_vision.backends.identity import driver as _driver
from edge_vision.backends.identity import processor as _processor
from edge_vision.backends.parity import sample_picture, sqnr_db
from edge_vision.backends.registry import REFERENCE, runtime_versions
from edge_vision.core.child_process import child_environment, describe_exit, python_command
from edge_vision.core.preprocess import Preprocessor
from edge_vision.core.printable import printable, printable_error, printable_output
from edge_vision.errors import BackendError, EdgeVisionError

if TYPE_CHECKING:
    from edge_vision.bundles.store import Bundle

FORMAT = 1
# Least signal to noise of a runtime's outputs against the reference's. fp16 and bf16 have 30 to 60 dB, an
# int8 graph that saturates has 2.
MIN_SQNR_DB = 15.0
# A later one must be faster by so much: what is within noise is no reason.
CLEARLY = 0.95
WARM_UP, MIN_ROUNDS, MAX_ROUNDS, MEASURE_S = 3, 5, 30, 3.0
# An engine may have to be built first.
TIME_LIMIT_S = 900.0
_EXAMPLES = """examples:
  python -m edge_vision.backends.auto_select ssdlite_mobilenet_v2_coco
  python -m edge_vision.backends.auto_select ./my_bundle --threads 1"""


@dataclass(frozen=True, slots=True)
class BackendTiming:
    """One runtime on this device. failure: why it has no figures, else "".

    p50_ms: the median time of a run. sqnr_db: its outputs against the reference's, see `core.parity`.
    """

    backend: str
    p50_ms: float = 0.0
    sqnr_db: float = 0.0
    failure: str = ""

    def __str__(self) -> str:
        if self.failure:
            return f"{self.backend} failed: {self.failure}"
        disagrees = "" if self.sqnr_db >= MIN_SQNR_DB else ", disagrees"
        return f"{self.backend} {self.p50_ms:.1f} ms ({self.sqnr_db:.0f} dB{disagrees})"


def choose(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> AutoSelection:
    """The order of these runtimes, which are all installed, for a bundle on this device.

    Takes what was measured before, or measures, which takes some seconds. Where that fails the order stays
    as it is, and the reason says why. The first name is the reference.
    """
    if len(names) < 2:
        return AutoSelection(
            tuple(names), f"{names[0]} is the only one installed" if names else "none is installed"
        )
    file = _file(bundle, names, request)
    kept = _read(file, names)
    if kept:
        return _ranked(kept, "measured before")
    try:
        rows = _measured_apart(bundle, names, request)
        when = "measured now" + _write(file, rows)
    except _Ended as error:
        rows = _each_apart(bundle, names, request)
        when = f"each was measured alone, as {error}"
    except EdgeVisionError as error:
        return AutoSelection(tuple(names), f"not measured: {error}")
    ranked = _ranked(rows, when)
    return replace(ranked, refused={row.backend: row.failure for row in rows if row.failure})


def check_agreement(bundle: Bundle, name: str, request: BackendRequest) -> None:
    """Raise BackendError where a runtime computes something else than the reference does on this device.

    Nothing is said where there is no reference to compare with.
    """
    from edge_vision.backends.registry import available_backends

    if name == REFERENCE or available_backends().get(REFERENCE, ""):
        return
    names = [REFERENCE, name]
    file = _file(bundle, names, request)
    rows = _read(file, names)
    if not rows:
        try:
            rows = _measured_apart(bundle, names, request)
        except _Ended:
            # Whichever of the two it was: where this one stays alive, there is no reference.
            _measured_apart(bundle, [name], request)
            return
        _write(file, rows)
    found = {row.backend: row for row in rows}
    if not found[REFERENCE].failure and not found[name].failure and found[name].sqnr_db < MIN_SQNR_DB:
        raise BackendError(
            f"{name} computes something else than {REFERENCE} does: {found[name].sqnr_db:.1f} dB, expected "
            f"{MIN_SQNR_DB:.0f} or more; choose another precision or backend"
        )


def measure(names: Sequence[str], load: Callable[[str], Session], bundle: Bundle) -> list[BackendTiming]:
    """Run the same picture on each, in turns. The first that can be loaded is the reference.

    load: opens the bundle on a runtime, may raise BackendError.
    """
    spec = bundle.manifest.input
    tensor, _ = Preprocessor(spec).prepare(sample_picture(spec.width_px, spec.height_px))
    inputs = {spec.name: tensor}
    sessions: dict[str, Session] = {}
    failures: dict[str, str] = {}
    for name in names:
        try:
            sessions[name] = load(name)
            for _ in range(WARM_UP):
                sessions[name].run(inputs)
        except BackendError as error:
            failures[name] = str(error)
            sessions.pop(name, None)
    times_ms: dict[str, list[float]] = {name: [] for name in sessions}
    outputs = {name: _copied(session.run(inputs)) for name, session in sessions.items()}
    for _ in _rounds():
        for name, session in sessions.items():
            started = time.perf_counter()
            session.run(inputs)
            times_ms[name].append((time.perf_counter() - started) * 1e3)
    reference = next(iter(outputs.values()), {})
    rows = [
        BackendTiming(name, round(median(times_ms[name]), 3), round(sqnr_db(reference, outputs[name]), 1))
        for name in sessions
    ]
    for session in sessions.values():
        session.close()
    return rows + [BackendTiming(name, failure=failure) for name, failure in failures.items()]


def _rounds() -> Iterator[None]:
    until_s = time.monotonic() + MEASURE_S
    for number in range(MAX_ROUNDS):
        if number >= MIN_ROUNDS and time.monotonic() > until_s:
            return
        yield


def _copied(outputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.copy() for name, value in outputs.items()}


def _ranked(rows: Sequence[BackendTiming], when: str) -> AutoSelection:
    """The fastest that agrees, then the rest as it came; those that failed or disagree last."""
    good = [row for row in rows if not row.failure and row.sqnr_db >= MIN_SQNR_DB]
    best = next(iter(good), None)
    for row in good[1:]:
        if best and row.p50_ms < CLEARLY * best.p50_ms:
            best = row
    order = sorted(rows, key=lambda row: (row is not best, row not in good))
    return AutoSelection(tuple(row.backend for row in order), f"{', '.join(map(str, order))}; {when}")


# In a process of its own.
class _Ended(BackendError):
    """The measuring process was killed by a signal, or had to be ended."""


def _measured_apart(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> list[BackendTiming]:
    """Raises _Ended, or BackendError where the process itself reports an error."""
    arguments = [f"{bundle.folder.absolute()}{os.sep}", "--json"]
    arguments += ["--device", request.device, "--precision", request.precision]
    arguments += ["--threads", str(request.threads), "--names", *names]
    command = python_command("edge_vision.backends.auto_select", *arguments)
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            env=child_environment(),
            timeout=TIME_LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        raise _Ended(f"the measuring process did not end within {TIME_LIMIT_S:.0f} s") from None
    except OSError as error:
        raise BackendError(f"the measuring process cannot be started: {error}") from None
    if done.returncode < 0:
        raise _Ended(f"the measuring process {describe_exit(done.returncode)}")
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        output = done.stderr.strip().splitlines()
        raise BackendError(
            f"the measuring process {describe_exit(done.returncode)}: {output[-1] if output else 'no output'}"
        )
    return [BackendTiming(**row) for row in json.loads(lines[-1])]


def _each_apart(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> list[BackendTiming]:
    """Each in a process of its own, where one of them ended the process that they shared. Their outputs are
    not compared, and the result is not kept."""
    rows: list[BackendTiming] = []
    for name in names:
        try:
            rows += _measured_apart(bundle, [name], request)
        except BackendError as error:
            rows.append(BackendTiming(name, failure=str(error)))
    return rows


@printable_output(stdout=False)
def main(args: Sequence[str] | None = None) -> int:
    """Measure, and print."""
    from edge_vision.backends.loading import load_on
    from edge_vision.backends.registry import available_backends
    from edge_vision.bundles.store import load_bundle

    options = _parser().parse_args(args)
    try:
        bundle = load_bundle(options.bundle)
        request = BackendRequest(options.device, options.precision, options.threads)
        names = options.names or [name for name, reason in available_backends().items() if reason is None]
        rows = measure(names, lambda name: load_on(bundle, name, request), bundle)
    except EdgeVisionError as error:
        print(printable_error(error), file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps([asdict(row) for row in rows]))
    else:
        print("\n".join(printable(str(row)) for row in rows))
        print(f"auto takes {_ranked(rows, '').names[0]}" if rows else "no runtime is installed")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m edge_vision.backends.auto_select",
        description="Measures the installed runtimes on a bundle: what `backend: auto` decides by.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", help="name of a bundle, or its folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="0 = one per physical core")
    parser.add_argument("--names", nargs="+", help="only these; the first is the reference")
    parser.add_argument("--json", action="store_true", help="one line of JSON")
    return parser


# What was measured before.
def _file(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> Path:
    from edge_vision import __version__
    from edge_vision.bundles.store import cache_dir

    facts = {
        "format": [FORMAT, __version__],
        "bundle": bundle.sha256,
        "names": list(names),
        "request": [request.device, request.precision, request.threads],
        "device": [platform.machine(), _processor(), _cores(), _driver()],
        "runtimes": runtime_versions(names),
    }
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return cache_dir() / "choice" / f"{key[:32]}.json"


def _read(file: Path, names: Sequence[str]) -> list[BackendTiming]:
    """What is kept; nothing where it cannot be read, or is not what `_write` wrote."""
    try:
        rows = [BackendTiming(**row) for row in json.loads(file.read_text("utf-8"))]
        sound = sorted(row.backend for row in rows) == sorted(names) and all(
            isinstance(row.failure, str)
            and 0 <= row.p50_ms < float("inf")
            and (row.p50_ms > 0 or row.failure)
            and row.sqnr_db < float("inf")
            for row in rows
        )
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return []
    return rows if sound else []


def _write(file: Path, rows: Sequence[BackendTiming]) -> str:
    """Keep it, whole or not at all. Returns "" or what went wrong."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, json.dumps([asdict(row) for row in rows]).encode())
    except OSError as error:
        return f", and will be again: {file.parent}: {error.strerror}"
    return ""


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
