"""Graphs of the YOLOv8 heads of masks, oriented boxes and key points, with known objects on a real grid."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from import_cases import constants


@dataclass(frozen=True)
class Export:
    """One export: the model's input, classes and layout, and the source image. k: its mask coefficients."""

    name: str
    width: int
    height: int
    n_classes: int
    source: tuple[int, int]
    transposed: bool = False
    relative: bool = False
    channels_last: bool = False
    k: int = 32
    points: tuple[int, int] = (17, 3)

    @property
    def scale(self) -> float:
        return min(self.width / self.source[0], self.height / self.source[1])

    @property
    def bars(self) -> tuple[float, float]:
        return (
            (self.width - round(self.source[0] * self.scale)) / 2,
            (self.height - round(self.source[1] * self.scale)) / 2,
        )

    @property
    def n_cells(self) -> int:
        return sum((self.width // s) * (self.height // s) for s in (8, 16, 32))

    @property
    def role(self) -> str:
        return "rows" if self.transposed else "columns"

    @property
    def labels(self) -> str:
        return "".join(f"part {number}\n" for number in range(self.n_classes))

    def metadata(self, task: str) -> dict[str, str]:
        names = {number: f"part {number}" for number in range(self.n_classes)}
        return {"task": task, "names": str(names), "kpt_shape": str(list(self.points))}

    def columns(self, seed: int, n_objects: int = 12) -> tuple[np.ndarray, np.ndarray]:
        """(4 + classes, cells) with this many objects of high scores, and the cells that have them."""
        rng = np.random.default_rng(seed)
        values = np.zeros((4 + self.n_classes, self.n_cells), np.float32)
        values[0] = rng.uniform(0, self.width, self.n_cells)
        values[1] = rng.uniform(0, self.height, self.n_cells)
        values[2:4] = rng.uniform(8, min(self.width, self.height) / 2, (2, self.n_cells))
        values[4:] = rng.uniform(0, 0.02, (self.n_classes, self.n_cells))
        cells = rng.choice(self.n_cells, n_objects, replace=False)
        values[4 + rng.integers(0, self.n_classes, n_objects), cells] = rng.uniform(0.5, 0.99, n_objects)
        return values, cells

    def graph(
        self, path: Path, columns: np.ndarray, more: dict[str, np.ndarray] | None = None, **metadata: str
    ) -> Path:
        """The graph of these (length, cells) columns."""
        columns = columns.astype(np.float32)
        if self.relative:
            columns = columns.copy()
            columns[:4] /= np.array([self.width, self.height] * 2)[:, None]
        output = np.ascontiguousarray(columns.T if self.transposed else columns)[None]
        picture = (1, self.height, self.width, 3) if self.channels_last else (1, 3, self.height, self.width)
        return constants(path, {"output0": output, **(more or {})}, picture, metadata or None)
