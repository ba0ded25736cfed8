"""What comes first: the model as a bundle, and pictures out of the clips."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_vision.bundles.store import Bundle
from edge_vision.optimize import reference
from edge_vision.optimize.clips import Clip, check_apart, read_clip, store, tiles
from edge_vision.optimize.errors import DISK_FULL, DiskFull, OptimizeError
from edge_vision.optimize.settings import Settings
from edge_vision.optimize.source import source_bundle

FILE = "prepared.json"
TUNING = 2
"""Pictures to search on for each one to calibrate on."""


def prepared(folder: Path, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    """Hashes of clips and of pictures, from before or made now. Raises OptimizeError, BundleError."""
    try:
        known: dict[str, Any] = json.loads((folder / FILE).read_text("utf-8"))
        return known
    except (OSError, ValueError):
        pass
    try:
        return _prepare(folder, settings, say)
    except OSError as error:
        raise (DiskFull(folder) if error.errno in DISK_FULL else error) from None


def _prepare(folder: Path, settings: Settings, say: Callable[[str], None]) -> dict[str, Any]:
    say(f"reading {settings.model}")
    bundle = source_bundle(settings.model, folder / "source")
    for name in ("pictures", "ranges"):
        shutil.rmtree(folder / name, ignore_errors=True)
    say("reading the clips")
    cut = tiles if bundle.manifest.task == "classify" else list
    pictures: dict[str, str] = {}
    clips = _judged(settings)
    judged = [picture for clip in clips for picture in clip.pictures]
    labelled = _write_truth(folder, settings, bundle, clips) if settings.labels else ""
    pictures["evaluation"] = store(cut(judged), folder / "pictures" / "evaluation")
    if settings.calibration:
        calibration = read_clip(Path(settings.calibration), (1 + TUNING) * settings.pictures)
        check_apart(calibration, clips)
        clips.append(calibration)
        # The search of layers is not to look at what the ranges were taken from.
        ranges = calibration.pictures[:: 1 + TUNING]
        others = [one for i, one in enumerate(calibration.pictures) if i % (1 + TUNING)]
        for name, part in (("calibration", ranges), ("tuning", others)):
            pictures[name] = store(cut(part), folder / "pictures" / name)
    elif needs_calibration(settings):
        raise OptimizeError(
            f"{', '.join(needs_calibration(settings))}: expected a clip to calibrate on, other than those to "
            f"judge on, got none: --calibration CLIP, or --precisions fp32 fp16"
        )
    facts = {
        "clips": {str(clip.path): clip.sha256 for clip in clips},
        "pictures": pictures,
        "truth": labelled,
    }
    (folder / FILE).write_text(json.dumps(facts, indent=1), "utf-8")
    return facts


def _write_truth(folder: Path, settings: Settings, bundle: Bundle, clips: list[Clip]) -> str:
    """truth.json: the labels of the pictures that were taken. Returns its sha256."""
    reference.check_installed()
    if bundle.manifest.task != "detect" or len(clips) != 1 or not clips[0].names:
        raise OptimizeError("--labels: expected a detector, and one folder of pictures to judge on")
    labelled = reference.read_truth(Path(settings.labels), clips[0].names, bundle.labels)
    text = json.dumps(labelled)
    (folder / "truth.json").write_text(text, "utf-8")
    return hashlib.sha256(text.encode()).hexdigest()


def needs_calibration(settings: Settings) -> list[str]:
    """The precisions asked for that are made from activations."""
    return [p for p in settings.precisions if p in ("int8", "mixed")]


def _judged(settings: Settings) -> list[Clip]:
    share = max(8, -(-settings.pictures // len(settings.frames)))
    return [read_clip(Path(path), share) for path in settings.frames]
