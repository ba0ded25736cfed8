"""ladder.yaml: bundles for one task, each faster than the one before. The optimizer writes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from edge_vision.bundles import schema
from edge_vision.bundles.schema import MAX_YAML_BYTES, Section
from edge_vision.bundles.store import bundle_folder
from edge_vision.errors import BundleError

MAX_RUNGS = 32
_FIGURES = ("id", "p50_ms", "p95_ms", "p99_ms", "agreement", "classes", "rss_mb", "cold_start_s")
_KEYS = ("bundle", "backend", "precision", "threads", "relative", *_FIGURES)


@dataclass(frozen=True, slots=True)
class Rung:
    """One bundle of a ladder. relative: time of a pass as a share of the baseline's. The rest are parameters
    of the detector."""

    model: str
    backend: str
    precision: str
    threads: int
    relative: float

    @property
    def parameters(self) -> dict[str, Any]:
        """Of the node that runs it."""
        return run_parameters(self.model, self.backend, self.precision, self.threads)


def run_parameters(model: str, backend: str, precision: str, threads: int) -> dict[str, Any]:
    """The node's parameters for a bundle with one graph: only bf16 has to be requested from the runtime."""
    requested = "bf16" if precision == "bf16" else "auto"
    return {"model": model, "backend": backend, "precision": requested, "threads": threads}


def read_ladder(path: Path) -> tuple[Rung, ...]:
    """The rungs of a file, the slowest first. Bundles are relative to its folder. Raises BundleError."""
    try:
        with path.open("rb") as file:
            text = file.read(MAX_YAML_BYTES + 1).decode("utf-8", "replace")
    except (OSError, ValueError) as error:
        raise BundleError(f"{path}: expected a ladder.yaml of the optimizer, got {error}") from None
    entries = schema.load_yaml(text, str(path))
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_RUNGS:
        raise BundleError(f"{path}: expected a list of 1 to {MAX_RUNGS} bundles, got {schema.shown(entries)}")
    rungs = tuple(_rung(path, number, entry) for number, entry in enumerate(entries))
    for above, below in pairwise(rungs):
        if below.relative >= above.relative:
            raise BundleError(
                f"{path}: relative: expected a faster bundle than the one before ({above.relative:g}), got "
                f"{below.relative:g} for {below.model}"
            )
    return rungs


def _rung(path: Path, number: int, entry: Mapping[str, Any]) -> Rung:
    section = Section(entry, str(path), str(number), _KEYS)
    name = section.take("bundle", schema.text, "a folder, relative to this file")
    return Rung(
        str(bundle_folder(str((path.parent / name).absolute()))),
        section.take("backend", schema.text, "a backend", "auto"),
        section.take("precision", schema.text, "a precision", "auto"),
        section.take("threads", schema.integer(0, 256), "0..256", 0),
        section.take("relative", schema.number(1e-6, 1e6), "a time as a share of the baseline's"),
    )
