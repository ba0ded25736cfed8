"""The settings of a study, stored with its results."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_vision.optimize.candidate import Size
from edge_vision.optimize.errors import OptimizeError
from edge_vision.optimize.records import decoded
from edge_vision.optimize.remote.address import check_devices
from edge_vision.optimize.runtimes import build_only_backends, measurable_backends

FILE = "settings.json"
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "mixed")
MIN_IMAGES = 8
"""With fewer, neither activation ranges nor an agreement can be estimated."""


@dataclass(frozen=True, slots=True)
class Settings:
    """One study. An empty tuple means: the study chooses.

    frames: evaluation clips, absolute paths. calibration: clip for calibration and the layer search, "" =
    none. labels: COCO JSON for the images of the only evaluation folder, "" = none. sizes: input sizes as
    typed. max_accuracy_loss: share of the agreement with the fp32 model at its native size. images: number
    per side (evaluation, calibration). measure_s: time spent on a candidate, and as much again on its parent.
    timeout_s: of one trial. exhaustive: measure every combination instead of searching. devices: `local` and
    addresses, empty = this machine.
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
    images: int = 32
    measure_s: float = 3.0
    timeout_s: float = 900.0
    exhaustive: bool = False
    trained: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_known("precisions", self.precisions, PRECISIONS)
        if self.backends:
            _check_known("backends", self.backends, (*measurable_backends(), *build_only_backends()))
        check_devices(self.devices)
        for size in self.sizes:
            Size.parse(size, Size(320, 320))
        for name in ("budget_ms", "max_rss_mb"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise OptimizeError(f"{name}: expected more than 0, got {value:g}")
        if not 0 <= self.max_accuracy_loss < 1:
            raise OptimizeError(f"max_accuracy_loss: expected 0 to below 1, got {self.max_accuracy_loss:g}")
        if any(not 1 <= count <= 256 for count in self.threads):
            raise OptimizeError(f"threads: expected 1 to 256, got {', '.join(map(str, self.threads))}")
        if self.images < MIN_IMAGES:
            raise OptimizeError(f"images: expected {MIN_IMAGES} or more, got {self.images}")
        if not self.timeout_s > 0 or not self.measure_s > 0:
            raise OptimizeError(
                f"timeout_s, measure_s: expected more than 0, got {self.timeout_s:g}, {self.measure_s:g}"
            )

    @property
    def min_agreement(self) -> float:
        """The least agreement that satisfies the bound."""
        return 1.0 - self.max_accuracy_loss

    def write(self, folder: Path) -> None:
        """Store the settings in the folder of results."""
        (folder / FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", "utf-8")

    @staticmethod
    def read(folder: Path) -> Settings:
        """The settings in a folder of results. Raises OptimizeError if it has none."""
        try:
            settings: Settings = decoded(Settings, json.loads((folder / FILE).read_text("utf-8")))
        except OSError as error:
            raise OptimizeError(
                f"{folder}: expected a folder written by `optimize run --out`, got one without {FILE}: "
                f"{error.strerror}"
            ) from None
        except (ValueError, TypeError, AttributeError) as error:
            raise OptimizeError(
                f"{folder / FILE}: expected the file that `optimize run` wrote, got: {error}"
            ) from None
        return settings


def _check_known(name: str, values: Sequence[str], known: Sequence[str]) -> None:
    unknown = [value for value in values if value not in known]
    if unknown:
        raise OptimizeError(f"{name}: expected some of {', '.join(known)}, got {', '.join(unknown)}")
