"""The data of a study: the model as a bundle, and images from the clips."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from edge_vision.bundles.store import Bundle
from edge_vision.errors import BundleError
from edge_vision.optimize.data import ground_truth
from edge_vision.optimize.data.clips import Clip, check_disjoint, read_clip, tiles, write_images
from edge_vision.optimize.errors import DISK_FULL, DiskFull, OptimizeError
from edge_vision.optimize.records import decoded
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.source import SHIPPED, source_bundle, write_shipped

FILE = "dataset.json"
LABELS = "labels.json"
EVALUATION, CALIBRATION, TUNING = "images/evaluation", "images/calibration", "images/tuning"
"""Folders within the study's folder. Calibration and tuning images are of the same clip; the layer search
uses the tuning images, from which no ranges were taken."""
_TUNING_PER_CALIBRATION = 2


@dataclass(frozen=True, slots=True)
class Dataset:
    """SHA-256 of the data. clips: by path. calibration, tuning: "" without a calibration clip. labels: ""
    without ground truth."""

    clips: Mapping[str, str]
    evaluation: str
    calibration: str = ""
    tuning: str = ""
    labels: str = ""


def prepare_dataset(folder: Path, settings: Settings, log: Callable[[str], None]) -> Dataset:
    """Write the source bundle, the images and the labels, unless an earlier run did.

    Raises OptimizeError, BundleError.
    """
    try:
        stored: Dataset = decoded(Dataset, json.loads((folder / FILE).read_text("utf-8")))
        return stored
    except (OSError, ValueError, TypeError, AttributeError):
        pass
    try:
        return _prepare(folder, settings, log)
    except OSError as error:
        raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None


def _prepare(folder: Path, settings: Settings, log: Callable[[str], None]) -> Dataset:
    log(f"reading {settings.model}")
    bundle = source_bundle(settings.model, folder / "source")
    try:
        write_shipped(settings.model, folder / SHIPPED)
    except BundleError as error:
        log(f"its own int8 graph is left out: {error}")
    for name in ("images", "ranges"):
        shutil.rmtree(folder / name, ignore_errors=True)
    log("reading the clips")
    classifier = bundle.manifest.task == "classify"
    clips = _evaluation_clips(settings)
    labels = _write_labels(folder, settings, bundle, clips) if settings.labels else ""
    images = [image for clip in clips for image in clip.images]
    evaluation = write_images(tiles(images) if classifier else images, folder / EVALUATION)
    calibration = tuning = ""
    if settings.calibration:
        clip = read_clip(Path(settings.calibration), (1 + _TUNING_PER_CALIBRATION) * settings.images)
        check_disjoint(clip, clips)
        clips.append(clip)
        calibration, tuning = _write_calibration(folder, clip, classifier)
    else:
        _check_no_calibration_needed(settings)
    hashes = {str(clip.path): clip.sha256 for clip in clips}
    dataset = Dataset(hashes, evaluation, calibration, tuning, labels)
    (folder / FILE).write_text(json.dumps(asdict(dataset), indent=1), "utf-8")
    return dataset


def _write_calibration(folder: Path, clip: Clip, classifier: bool) -> tuple[str, str]:
    """Hashes of the calibration and of the tuning images."""
    period = 1 + _TUNING_PER_CALIBRATION
    calibration = list(clip.images[::period])
    tuning = [image for number, image in enumerate(clip.images) if number % period]
    parts = ((calibration, CALIBRATION), (tuning, TUNING))
    first, second = (
        write_images(tiles(images) if classifier else images, folder / path) for images, path in parts
    )
    return first, second


def _check_no_calibration_needed(settings: Settings) -> None:
    needing = [precision for precision in settings.precisions if precision in ("int8", "mixed")]
    if needing:
        raise OptimizeError(
            f"{', '.join(needing)}: expected a calibration clip besides the evaluation clips, got none: "
            f"--calibration CLIP, or --precisions fp32 fp16"
        )


def _write_labels(folder: Path, settings: Settings, bundle: Bundle, clips: list[Clip]) -> str:
    """Write the labels of the evaluation images. Returns their SHA-256."""
    ground_truth.check_installed()
    if bundle.manifest.task != "detect" or len(clips) != 1 or not clips[0].names:
        raise OptimizeError("--labels: expected a detector, and one folder of images as evaluation clip")
    labels = ground_truth.read_labels(Path(settings.labels), clips[0].names, bundle.labels)
    text = json.dumps(labels)
    (folder / LABELS).write_text(text, "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def _evaluation_clips(settings: Settings) -> list[Clip]:
    share = max(8, -(-settings.images // len(settings.frames)))
    return [read_clip(Path(path), share) for path in settings.frames]
