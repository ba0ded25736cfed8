"""Keeps timings of backends in the cache, one file per bundle, request, device and runtime versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from edge_vision import __version__
from edge_vision.backends.base import BackendRequest
from edge_vision.backends.host import driver, processor, usable_cpus
from edge_vision.backends.registry import runtime_versions
from edge_vision.backends.runtimes.engine_cache import write_file
from edge_vision.backends.selection.backend_timing import BackendTiming, Timings
from edge_vision.bundles.store import cache_dir

if TYPE_CHECKING:
    from edge_vision.bundles.store import Bundle

FORMAT = 2
FOLDER = "auto_select"


def timing_file(bundle: Bundle, names: Sequence[str], request: BackendRequest) -> Path:
    """Where the timings of these backends are kept. Another file if anything changed that they depend on."""
    key = {
        "format": [FORMAT, __version__],
        "bundle": bundle.sha256,
        "names": list(names),
        "request": [request.device, request.precision, request.threads, *filter(None, [request.remote_url])],
        "device": [platform.machine(), processor(), len(usable_cpus()), driver()],
        "runtimes": runtime_versions(names),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return cache_dir() / FOLDER / f"{digest[:32]}.json"


def read_timings(file: Path, names: Sequence[str]) -> Timings | None:
    """The kept timings; None if there are none, or the file is not what `write_timings` wrote."""
    try:
        timings = timings_from_json(file.read_text("utf-8"))
        return timings if timings.is_valid_for(names) else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def write_timings(file: Path, timings: Timings) -> str:
    """Keep the timings, whole or not at all. Returns "" or what went wrong."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, timings_to_json(timings).encode())
    except OSError as error:
        return f"{file.parent}: {error.strerror}"
    return ""


def timings_to_json(timings: Timings) -> str:
    return json.dumps(asdict(timings))


def timings_from_json(text: str) -> Timings:
    """The timings in a line of JSON. Raises ValueError, TypeError or KeyError for anything else."""
    values = json.loads(text)
    rows = (BackendTiming(**{**row, "rounds_ms": tuple(row["rounds_ms"])}) for row in values["rows"])
    return Timings(**{**values, "rows": tuple(rows)})
