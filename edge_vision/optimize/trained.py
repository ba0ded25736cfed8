"""Bundles of `optimize train` as candidates of a study."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.optimize.errors import OptimizeError

_FOLDERS = ("int8", "bundle")
"""Of an output of `optimize train`; the first that is there. `qat` has no int8/, as its bundle is int8."""


def trained_bundles(study: Path, folders: Sequence[str], source: Bundle) -> dict[str, Bundle]:
    """Copies in the study's folder, by name such as `qat` or `student_2`.

    Raises OptimizeError for a folder without a bundle, or with one of another task or other labels.
    """
    found: dict[str, Bundle] = {}
    for number, folder in enumerate(folders, 1):
        copy = study / f"trained_{number}"
        if not (copy / "bundle.yaml").is_file():
            shutil.copytree(_bundle_of(Path(folder)), copy)
        bundle = load_bundle(f"{copy}{os.sep}")
        _check(bundle, source, folder)
        recipe = str(bundle.manifest.figures["train"]["request"]["recipe"])
        found[recipe if recipe not in found else f"{recipe}_{number}"] = bundle
    return found


def _bundle_of(folder: Path) -> Path:
    for path in (folder / name for name in _FOLDERS):
        if (path / "bundle.yaml").is_file():
            return path
    raise OptimizeError(
        f"{folder}: expected a folder that `optimize train` wrote, got one without a bundle; was it refused?"
    )


def _check(bundle: Bundle, source: Bundle, folder: str) -> None:
    unknown = [label for label in bundle.labels if label not in source.labels]
    task = bundle.manifest.task
    if "train" not in bundle.manifest.figures or task != source.manifest.task or unknown:
        raise OptimizeError(
            f"{folder}: expected a result of `optimize train` for task {source.manifest.task} with the "
            f"model's labels, got {task}{', with ' + ', '.join(unknown[:3]) if unknown else ''}"
        )
