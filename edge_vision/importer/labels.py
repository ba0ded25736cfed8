"""The names of a model's classes: given, in the file, beside it, or inferred from their number."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge_vision.errors import BundleError
from edge_vision.importer.model import Model
from edge_vision.offline.coco_labels import UNUSED, coco_labels

_MAX_BYTES = 1 << 20

Labels = tuple[tuple[str, ...], str]
"""The names in the order of the classes, and their origin."""


def known_labels(model: Model, given: Path | None) -> Labels | None:
    """Labels that are declared somewhere, and their origin. Raises BundleError for an invalid file."""
    if given is not None:
        return _from_file(given), f"from {given}"
    if names := _from_names(model.metadata.get("names", "")):
        return names, "names in the file's metadata"
    if model.labels:
        return model.labels, "a list in the file"
    if names := _from_config(model.path.parent):
        return names, "id2label in config.json beside the file"
    beside = model.path.parent / "labels.txt"
    if beside.is_file():
        return _from_file(beside), "labels.txt beside the file"
    return None


def labels_for(
    model: Model, known: Labels | None, n_classes: int | None, family: str, given: bool
) -> Labels | None:
    """A label for each class, None if unknown. Raises BundleError if the given ones have another number."""
    if known and n_classes in (None, len(known[0])):
        return known
    if known and given:
        raise BundleError(
            f"expected {n_classes} labels, one for each class of the graph, got {len(known[0])} {known[1]}"
        )
    if n_classes is None or why_unused(model, known):
        return None
    coco = coco_labels()
    names = tuple(name for name in coco if name != UNUSED)
    if n_classes == len(names):
        return names, "80 classes: assumed to be COCO's"
    if n_classes == len(coco) and family == "tf":
        return coco, "90 classes: assumed to be COCO's, as numbered by TF object detection"
    if n_classes == len(coco) + 1 and family == "detr":
        return (UNUSED, *coco), "91 classes: assumed to be COCO's, as numbered by DETR"
    if n_classes == 1 and family == "centerface":
        return ("face",), "CenterFace's one class"
    return None


def why_unused(model: Model, known: Labels | None) -> str:
    """Why declared names are not used, if they do not fit the classes; "" if none are declared."""
    if known:
        return f"unused: {len(known[0])} labels, {known[1]}"
    if model.metadata.get("names"):
        return "unused: names in the file's metadata, not numbered 0, 1, 2, ..."
    return ""


def numbered(n_classes: int) -> tuple[str, ...]:
    """Names for classes without names."""
    return tuple(f"class_{number}" for number in range(n_classes))


def _from_file(path: Path) -> tuple[str, ...]:
    lines = [line.strip() for line in _read(path).removeprefix("\ufeff").rstrip().split("\n")]
    if not lines[0] or "" in lines:
        number = lines.index("") + 1
        raise BundleError(f"{path}: expected one label per line, line {number} is empty")
    return tuple(lines)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise BundleError(f"{path}: expected at most {_MAX_BYTES} bytes, got more")
        return data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(
            f"{path}: expected a text file with one label per line, got an error: {error}"
        ) from None


def _from_names(text: str) -> tuple[str, ...] | None:
    """Ultralytics writes a Python dictionary or list of literals, parsed without evaluation."""
    if not text or len(text) > _MAX_BYTES:
        return None
    try:
        names = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return None
    return _in_order(names)


def _from_config(folder: Path) -> tuple[str, ...] | None:
    """The labels of Hugging Face's config.json."""
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        config = json.loads(_read(path))
    except (BundleError, ValueError, RecursionError):
        return None
    return _in_order(config.get("id2label")) if isinstance(config, dict) else None


def _in_order(names: Any) -> tuple[str, ...] | None:
    """A list of names, or a mapping of 0, 1, 2, ... to names; None for anything else."""
    if isinstance(names, Mapping):
        try:
            numbered_names = {int(number): name for number, name in names.items()}
        except (ValueError, TypeError, OverflowError):
            return None
        if sorted(numbered_names) != list(range(len(numbered_names))):
            return None
        names = [numbered_names[number] for number in range(len(numbered_names))]
    if not isinstance(names, (list, tuple)) or not names:
        return None
    labels = tuple(" ".join(str(name).split()) for name in names)
    if not any(labels):
        return None
    # The background of an open vocabulary is an empty prompt.
    return tuple(label or number for label, number in zip(labels, numbered(len(labels)), strict=True))
