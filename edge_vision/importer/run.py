"""Tries a draft with real inference, and installs the bundle."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from edge_vision.backends import load_on
from edge_vision.backends.base import BackendRequest, Session, TensorSpec
from edge_vision.bundles.manifest import NAME_PATTERN
from edge_vision.bundles.store import FETCHABLE, Bundle, bundles_dir, load_bundle
from edge_vision.core.detection_overlay import draw_detections, label_of
from edge_vision.core.frame import Frame
from edge_vision.detect.classifier import Classifier
from edge_vision.detect.detector import Detector
from edge_vision.detect.heads import make_head
from edge_vision.errors import BackendError, BundleError, HeadError, ImageError
from edge_vision.importer.draft import LABELS_FILE, Draft
from edge_vision.importer.probe import backends_for, first_not_killed
from edge_vision.offline.bundle_folder import check_replaceable, put, store_lock, write_folder
from edge_vision.offline.media_files import read_image_file
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError

_IMPORTING = ".importing-"
_TOP = 10

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class TrialInference:
    """What a bundle found. lines: for people. overlay: (h, w, 3) uint8 BGR with the boxes, or None."""

    lines: tuple[str, ...]
    overlay: np.ndarray | None


def destination(out: Path | None, name: str, force: bool) -> Path:
    """The folder of the bundle. Raises BundleError if it exists or cannot be written."""
    if not re.fullmatch(NAME_PATTERN, name):
        raise BundleError(
            f"expected a name of 1 to 64 of a-z, 0-9 and _, got {name!r:.80}; give another with --name"
        )
    if out is None and name in FETCHABLE:
        raise BundleError(
            f"'{name}' is the name of a bundle that `fetch` makes; choose another with --name, or a folder "
            f"with --out"
        )
    folder = out if out is not None else bundles_dir() / name
    if out is None:
        folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.parent.is_dir():
        raise BundleError(f"{folder}: expected a folder in an existing one, {folder.parent} does not exist")
    if (folder.exists() or folder.is_symlink()) and not force:
        raise BundleError(f"{folder}: exists already; --force replaces it, --out names another folder")
    check_replaceable(folder)
    return folder


@contextmanager
def workspace(parent: Path) -> Iterator[Path]:
    """A temporary folder, removed afterwards in any case."""
    try:
        with tempfile.TemporaryDirectory(prefix=_IMPORTING, dir=parent) as folder:
            yield Path(folder)
    except OSError as error:
        raise BundleError(f"{parent}: expected a folder to write to, got an error: {error}") from None


def write_draft(draft: Draft, folder: Path) -> Bundle:
    """Write the bundle to a temporary folder, read it back and verify it. Raises BundleError."""
    graph = draft.manifest.graphs[0]
    labels = "".join(f"{label}\n" for label in draft.labels).encode()
    write_folder(folder, draft.manifest, {graph.file: draft.graph, LABELS_FILE: labels})
    bundle = load_bundle(f"{folder}{os.sep}")
    bundle.verify(graph)
    return bundle


def try_bundle(bundle: Bundle, outputs: Sequence[TensorSpec], image: np.ndarray | None) -> TrialInference:
    """Open the bundle as a node would, check its head, and run it on (h, w, 3) uint8 BGR if given.

    outputs: of its graph, to check the head if no installed backend reads the graph. Raises BundleError if it
    does not run or its head does not fit.
    """
    manifest = bundle.manifest
    try:
        names = backends_for(manifest.graphs[0].format)
        if not names:
            make_head(manifest.head, manifest.input, outputs, len(bundle.labels))
            return TrialInference(
                (f"not tried: no installed backend reads {manifest.graphs[0].format}",), None
            )
        session = first_not_killed(names, lambda name: load_on(bundle, name, BackendRequest()))
        try:
            return _run(bundle, session, image)
        finally:
            session.close()
    except (BackendError, HeadError) as error:
        raise BundleError(f"the bundle does not run with these guesses: {error}") from None


def _run(bundle: Bundle, session: Session, image: np.ndarray | None) -> TrialInference:
    runs = Detector if bundle.manifest.task == "detect" else Classifier
    runner = runs.from_bundle(bundle, session)
    runner.warm_up(1)
    actual = f"{session.actual.backend} {session.actual.version} on {session.actual.device}"
    if image is None:
        return TrialInference((f"runs on {actual}; --try IMAGE shows what it finds",), None)
    frame = Frame(image, 0, "", "bgr8")
    if isinstance(runner, Detector):
        return _detected(runner, frame, bundle.labels, actual)
    return _classified(runner, frame, bundle.labels, actual)


def _detected(detector: Detector, frame: Frame, labels: tuple[str, ...], actual: str) -> TrialInference:
    result = detector.detect(frame, with_masks=True)
    found = result.detections
    threshold = detector.thresholds.score_threshold
    top = "" if result.top_score is None else f", the highest score {result.top_score:.2f}"
    time_ms = result.timing.total_ms
    lines = [f"found {len(found)} of score {threshold:g} or more{top}, in {time_ms:.0f} ms by {actual}"]
    for box, score, class_id in zip(found.xyxy_px[:_TOP], found.scores, found.class_ids, strict=False):
        corners = "{:.0f},{:.0f} to {:.0f},{:.0f} px".format(*box)
        lines.append(f"  {label_of(labels, int(class_id))} {score:.2f}  {corners}")
    if len(found) > _TOP:
        lines.append(f"  and {len(found) - _TOP} more")
    if detector.unlabelled:
        lines.append(
            f"  dropped {detector.unlabelled} of a class without a label: correct --labels, or the number of "
            f"the first class with --set head.options.first_class=, where the head has it"
        )
    return TrialInference(tuple(lines), draw_detections(frame.bgr().copy(), found, labels))


def _classified(classifier: Classifier, frame: Frame, labels: tuple[str, ...], actual: str) -> TrialInference:
    result = classifier.classify(frame)
    scores = result.scores
    lines = [f"classified in {result.timing.total_ms:.0f} ms by {actual}"]
    lines += [f"  {label_of(labels, int(one))} {scores[one]:.2f}" for one in np.argsort(-scores)[:5]]
    return TrialInference(tuple(lines), None)


def install(folder: Path, target: Path, report: Report) -> Bundle:
    """Move the finished folder to its target and replace what was there. Raises BundleError."""
    old = folder.parent / ".old"
    try:
        with store_lock(report) if target.parent == bundles_dir() else nullcontext():
            put(folder, target, old)
    except OSError as error:
        raise BundleError(f"{target}: expected a folder to write to, got an error: {error}") from None
    return load_bundle(f"{target}{os.sep}")


def read_image(path: Path) -> np.ndarray:
    """(h, w, 3) uint8 BGR of an image file, or the first frame of a video. Raises BundleError."""
    if not path.is_file():
        raise BundleError(f"{path}: expected an image or a video that OpenCV reads, got none")
    try:
        return read_image_file(path)
    except ImageError as error:
        if error.reason == "too_large":
            raise BundleError(f"{path}: {error}") from None
    with suppress(SourceError), closing(open_source(str(path.absolute()))) as capture:
        if (image := capture.read()) is not None:
            return image
    raise BundleError(f"{path}: expected an image or a video that OpenCV reads, got none")
