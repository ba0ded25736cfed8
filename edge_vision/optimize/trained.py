"""Bundles of `optimize train` as candidates of a study."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.offline.output_folder import remove_path
from edge_vision.optimize import settings
from edge_vision.optimize.errors import OptimizeError

_FOLDERS = ("int8", "bundle")
"""Of an output of `optimize train`; the first that is there. `qat` has no int8/, as its bundle is int8."""
TRAINING_COMMAND = "optimize-train"
"""The command that owns such an output."""
COPY = re.compile(r"trained_[0-9]+")
"""Names of the copies in a study's folder."""


def trained_bundles(study: Path, folders: Sequence[str], source: Bundle) -> dict[str, Bundle]:
    """Copies in the study's folder, by name such as `qat` or `student_2`.

    Raises OptimizeError for a folder without a bundle, or with one of another task or other labels.
    """
    found: dict[str, Bundle] = {}
    for number, folder in enumerate(folders, 1):
        copy = study / f"trained_{number}"
        if not (copy / "bundle.yaml").is_file():
            given = trained_bundle(Path(folder))
            _check(load_bundle(f"{given}{os.sep}"), source, folder)
            remove_path(copy)  # A kill may have left a part of it.
            shutil.copytree(given, copy)
        bundle = load_bundle(f"{copy}{os.sep}")
        _check(bundle, source, folder)
        recipe = _recipe(bundle)
        found[recipe if recipe not in found else f"{recipe}_{number}"] = bundle
    return found


def trained_bundle(folder: Path) -> Path:
    """The bundle in an output of `optimize train`. Raises OptimizeError for another folder."""
    if (folder / settings.FILE).is_file():
        raise OptimizeError(
            f"{folder}: expected a folder of `optimize train`, got one of `optimize run`: its rows cannot be "
            f"those of another table"
        )
    for path in (folder / name for name in _FOLDERS):
        if (path / "bundle.yaml").is_file():
            return path
    found = {path.parent.parent for name in _FOLDERS for path in folder.glob(f"*/{name}/bundle.yaml")}
    steps = sorted(str(path) for path in found if not (path / "params.yaml").exists())
    if steps:
        raise OptimizeError(
            f"{folder}: expected a folder of `optimize train`, got one around "
            f"several: pass {shlex.join(steps)}"
        )
    if (folder / "bundle.yaml").is_file():
        raise OptimizeError(
            f"{folder}: expected a folder of `optimize train`, got a bundle: pass the folder around it"
        )
    raise OptimizeError(
        f"{folder}: expected a folder that `optimize train` wrote, got one without a bundle; was it refused?"
    )


def seen_clips(bundle: Bundle, clips: Mapping[str, str]) -> list[str]:
    """The clips that a bundle was trained on. clips: path -> SHA-256."""
    train = bundle.manifest.figures.get("train")
    ranges = train.get("train") if isinstance(train, dict) else None
    seen = [
        one.get("sha256") for one in (ranges if isinstance(ranges, list) else ()) if isinstance(one, dict)
    ]
    return [path for path, sha256 in clips.items() if sha256 in seen]


def _recipe(bundle: Bundle) -> str:
    """Of its lineage; "" = not of a training."""
    train = bundle.manifest.figures.get("train")
    request = train.get("request") if isinstance(train, dict) else None
    recipe = request.get("recipe") if isinstance(request, dict) else None
    return recipe if isinstance(recipe, str) and re.fullmatch("[a-z]+", recipe) else ""


def _check(bundle: Bundle, source: Bundle, folder: str) -> None:
    unknown = [label for label in bundle.labels if label not in source.labels]
    task = bundle.manifest.task
    if not _recipe(bundle) or task != source.manifest.task or unknown:
        raise OptimizeError(
            f"{folder}: expected a result of `optimize train` for task {source.manifest.task} with the "
            f"model's labels, got {task}{', with ' + ', '.join(unknown[:3]) if unknown else ''}"
        )
