"""What was asked for, as it is kept beside the results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from edge_vision.backends import backends_with
from edge_vision.optimize.errors import OptimizeError

FILE = "settings.json"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "mixed")
MIN_PICTURES = 8
"""Fewer tell neither the range of an activation nor a share of lost boxes."""


def measurable_backends() -> tuple[str, ...]:
    """Backends that the optimizer can measure, those of other packages included."""
    return backends_with(lambda backend: backend.can_optimize)


def onnx_backends() -> tuple[str, ...]:
    """Measurable backends that run the graphs made here; the others run a graph that the bundle brings."""
    return backends_with(lambda backend: backend.can_optimize and "onnx" in backend.formats)


def build_only_backends() -> tuple[str, ...]:
    """Backends whose engines are built on request but not run."""
    return backends_with(lambda backend: not backend.can_optimize and backend.builds_without_device)


@dataclass(frozen=True, slots=True)
class Settings:
    """One study. Empty tuples leave the choice to the study.

    frames: clips to judge on, absolute paths. calibration: the clip to calibrate and search on, "" = none.
    labels: COCO JSON for the pictures of the one folder to judge on, "" = none.
    sizes: input sizes as they were typed. max_accuracy_loss: share of agreement with the fp32 native model.
    pictures: how many of each side. measure_s: spent on timing each candidate, and as much on its parent.
    timeout_s: of one job. exhaustive: measure every cell, search nothing.
    """

    model: str
    frames: tuple[str, ...]
    calibration: str = ""
    labels: str = ""
    budget_ms: float | None = None
    max_rss_mb: float | None = None
    max_accuracy_loss: float = 0.01
    backends: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    sizes: tuple[str, ...] = ()
    threads: tuple[int, ...] = ()
    pictures: int = 32
    measure_s: float = 3.0
    timeout_s: float = 900.0
    exhaustive: bool = False

    def __post_init__(self) -> None:
        _known("precisions", self.precisions, PRECISIONS)
        _known("backends", self.backends, (*measurable_backends(), *build_only_backends()))
        for name in ("budget_ms", "max_rss_mb"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise OptimizeError(f"{name}: expected more than 0, got {value:g}")
        if not 0 <= self.max_accuracy_loss < 1:
            raise OptimizeError(f"max_accuracy_loss: expected 0 to below 1, got {self.max_accuracy_loss:g}")
        if any(not 1 <= one <= 256 for one in self.threads):
            raise OptimizeError(f"threads: expected 1 to 256, got {', '.join(map(str, self.threads))}")
        if self.pictures < MIN_PICTURES:
            raise OptimizeError(f"pictures: expected {MIN_PICTURES} or more, got {self.pictures}")
        if not self.timeout_s > 0 or not self.measure_s > 0:
            raise OptimizeError(
                f"timeout_s, measure_s: expected more than 0, got {self.timeout_s:g}, {self.measure_s:g}"
            )

    @property
    def measured(self) -> tuple[str, ...]:
        """The backends asked for that are measured; empty = those that are here."""
        return tuple(name for name in self.backends if name not in build_only_backends())

    @property
    def built(self) -> tuple[str, ...]:
        """The backends asked for whose engines are built only."""
        return tuple(name for name in self.backends if name in build_only_backends())

    def write(self, folder: Path) -> None:
        """Keep them in the folder of results."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @staticmethod
    def read(folder: Path) -> Settings:
        """The settings of a folder of results. Raises OptimizeError where it is none."""
        try:
            values = json.loads((folder / FILE).read_text("utf-8"))
            known = {item.name for item in fields(Settings)}
            kept: dict[str, Any] = {k: v for k, v in values.items() if k in known}
            kept.update({k: tuple(v) for k, v in kept.items() if isinstance(v, list)})
            return Settings(**kept)
        except OSError as error:
            raise OptimizeError(
                f"{folder}: expected a folder that `optimize run --out` made, got none with {FILE}: "
                f"{error.strerror}"
            ) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise OptimizeError(
                f"{folder / FILE}: expected what `optimize run` wrote, got: {error}"
            ) from None


def _known(what: str, values: Sequence[str], known: Sequence[str]) -> None:
    wrong = [value for value in values if value not in known]
    if wrong:
        raise OptimizeError(f"{what}: expected some of {', '.join(known)}, got {', '.join(wrong)}")
