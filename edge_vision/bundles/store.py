"""Bundles on disk: the store, and opening a bundle."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_vision.bundles.manifest import (
    MANIFEST_FILE,
    NAME_PATTERN,
    GraphSpec,
    Manifest,
    inside,
    parse_manifest,
)
from edge_vision.bundles.schema import MAX_YAML_BYTES, nearest
from edge_vision.errors import BundleError

MAX_LABELS_BYTES = 1 << 20
# More than any published classifier. label_info has all of them in one message.
MAX_LABELS = 30_000
MAX_GRAPH_BYTES = 2**31 - 1
"""Of one file: the limit of ONNX and TensorFlow Lite."""


def cache_dir() -> Path:
    """$EDGE_VISION_CACHE, else edge_vision below $XDG_CACHE_HOME or ~/.cache. It need not exist."""
    own = os.environ.get("EDGE_VISION_CACHE")
    if own:
        return Path(own).expanduser().absolute()
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # The XDG specification requires that a relative path is ignored.
    return (base if base.is_absolute() else Path.home() / ".cache") / "edge_vision"


def bundles_dir() -> Path:
    """The store: one folder per bundle, named after it."""
    return cache_dir() / "bundles"


@dataclass(frozen=True, slots=True)
class Bundle:
    """A validated bundle. labels: index = class_id. sha256: of bundle.yaml, in hex."""

    folder: Path
    manifest: Manifest
    labels: tuple[str, ...]
    sha256: str

    @property
    def name(self) -> str:
        return self.manifest.name

    @property
    def version(self) -> str:
        return self.manifest.version

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.sha256[:12]})"

    def graph_path(self, formats: Sequence[str], precision: str = "auto") -> tuple[Path, GraphSpec]:
        """The verified graph in the first of these formats that the bundle has.

        precision: "auto" selects the first graph of the format. Raises BundleError if no graph fits or the
        file does not match the manifest.
        """
        for wanted in formats:
            for graph in self.manifest.graphs:
                if graph.format == wanted and precision in ("auto", graph.precision):
                    return self.verify(graph), graph
        has = ", ".join(f"{graph.format} {graph.precision}" for graph in self.manifest.graphs)
        raise BundleError(
            f"{self.folder}: expected a graph in {' or '.join(formats) or 'no format'}"
            f"{'' if precision == 'auto' else ' with precision ' + precision}, got {has}; "
            "choose another backend, precision or bundle"
        )

    def verify(self, graph: GraphSpec) -> Path:
        """The path of a graph whose files match their sha256. Raises BundleError."""
        for file, expected in graph.files:
            path = _existing(self.folder, file)
            _check_size(path)
            actual = sha256_of(path)
            if actual != expected:
                raise BundleError(
                    f"{path}: expected sha256 {expected}, got {actual}; the file is damaged or was modified, "
                    f"make the bundle again{_fetch_hint(self.name)}"
                )
        return self.folder / graph.file


def load_bundle(name_or_path: str) -> Bundle:
    """Open a bundle by its name in the store, or by its folder. The graphs are verified when they are used.

    A path without a slash is a name; write `./folder` for a folder. Raises BundleError.
    """
    folder = bundle_folder(name_or_path)
    try:
        bundle = _load_folder(folder)
    except (OSError, ValueError, RuntimeError) as error:  # No permission.
        raise _unreadable(name_or_path, error) from None
    if re.fullmatch(NAME_PATTERN, name_or_path) and bundle.name != name_or_path:
        raise BundleError(
            f"{folder / MANIFEST_FILE}: name: expected {name_or_path!r}, the folder's name, got "
            f"{bundle.name!r}; rename the folder"
        )
    return bundle


def bundle_folder(name_or_path: str) -> Path:
    """The folder of a bundle, by its name in the store or its path. Raises BundleError if there is none.

    Does not check the contents of the folder.
    """
    try:
        named = re.fullmatch(NAME_PATTERN, name_or_path)
        folder = bundles_dir() / name_or_path if named else Path(name_or_path).expanduser()
        exists = folder.is_dir() and folder != Path()
    except (OSError, ValueError, RuntimeError) as error:  # A name too long or with a NUL, no home directory.
        raise _unreadable(name_or_path, error) from None
    if not exists:
        raise BundleError(_missing(name_or_path, folder) if named else _not_a_bundle(name_or_path))
    return folder


def list_bundles() -> list[str]:
    """The names in the store, sorted, valid or not."""
    folder = bundles_dir()
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir() if path.is_dir())
    return sorted(name for name in names if re.fullmatch(NAME_PATTERN, name))


def sha256_of(path: Path) -> str:
    """The sha256 of a file, in hex. Raises BundleError if it cannot be read."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise BundleError(
            f"{path}: expected a file that can be read, got an error: {error.strerror}"
        ) from None
    return digest.hexdigest()


def _load_folder(folder: Path) -> Bundle:
    text = _manifest_text(folder)
    manifest = parse_manifest(text, folder)
    for graph in manifest.graphs:
        for file, _ in graph.files:
            _existing(folder, file)
    return Bundle(
        folder=folder,
        manifest=manifest,
        labels=_labels(_existing(folder, manifest.labels_file)),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
    )


def read_manifest(folder: Path) -> Manifest:
    """The manifest in a folder; the files that it names may be missing. Raises BundleError."""
    return parse_manifest(_manifest_text(folder), folder)


def _manifest_text(folder: Path) -> str:
    return _read_text(_existing(folder, MANIFEST_FILE), MAX_YAML_BYTES)


def _check_size(path: Path) -> None:
    """Raise BundleError for a file too large to hash: a sparse file can have any size."""
    size_bytes = path.stat().st_size
    if size_bytes > MAX_GRAPH_BYTES:
        raise BundleError(
            f"{path}: expected at most {MAX_GRAPH_BYTES / 1e9:.1f} GB, got {size_bytes / 1e9:.1f} GB; "
            f"make the bundle again, from a smaller model"
        )


def _existing(folder: Path, file: str) -> Path:
    path = inside(folder, file)
    if not path.is_file():
        raise BundleError(
            f"{path}: expected a file, got {'a folder or device' if path.exists() else 'no such file'}; "
            f"the bundle is incomplete, make it again{_fetch_hint(folder.name)}"
        )
    return path


def _read_text(path: Path, limit_bytes: int) -> str:
    with path.open("rb") as file:
        data = file.read(limit_bytes + 1)
    if len(data) > limit_bytes:
        raise BundleError(f"{path}: expected at most {limit_bytes} bytes, got more")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(
            f"{path}: expected UTF-8 text, got an invalid byte at {error.start}; save it as UTF-8"
        ) from None


def _labels(path: Path) -> tuple[str, ...]:
    lines = _read_text(path, MAX_LABELS_BYTES).removeprefix("\ufeff").removesuffix("\n").split("\n")
    if len(lines) > MAX_LABELS:
        raise BundleError(
            f"{path}: expected at most {MAX_LABELS} labels, got {len(lines)}: leave out unused classes"
        )
    labels = tuple(line.strip() for line in lines)
    for number, label in enumerate(labels, start=1):
        if not label:
            raise BundleError(f"{path}: expected one label per line, line {number} is empty")
    return labels


def _fetch_hint(name: str) -> str:
    return f": python -m edge_vision models fetch {name}" if name in FETCHABLE else ""


def _unreadable(name_or_path: str, error: Exception) -> BundleError:
    return BundleError(f"expected a bundle at {name_or_path!r:.200}, got an error: {error!s:.200}")


def _not_a_bundle(name_or_path: str) -> str:
    return (
        f"expected the name of a bundle or its folder, got {name_or_path!r:.200}, which is neither; "
        "`python -m edge_vision models list` shows the names"
    )


def _missing(name: str, folder: Path) -> str:
    text = f"expected the bundle {name!r} at {folder}, got no such folder; "
    if name in FETCHABLE:
        return text + f"make it with: python -m edge_vision models fetch {name}"
    if Path(name).is_dir():
        return text + f"for the folder of that name here, write ./{name}"
    known = sorted({*FETCHABLE, *list_bundles()})
    return (
        text + f"known: {', '.join(known)}{nearest(name, known)} "
        "(`python -m edge_vision models import FILE` makes one of your own model)"
    )


DEFAULT = (
    "nanodet",
    "nanodet_320",
    "ssdlite_mobilenet_v2_coco",
    "efficientnet_lite0_imagenet",
    "ssd_mobilenet_v2_oidv4",
    "person_vehicle_stage",
)
"""Made by `models fetch` without names."""
FETCHABLE = (*DEFAULT, "centernet", "movenet")
"""The last two take a large download, so they are made by name only."""
