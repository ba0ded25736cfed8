"""The command: `python -m edge_vision evaluate fit-cascade`."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

from edge_vision.backends import BackendRequest, open_session
from edge_vision.bundles.manifest import NAME_PATTERN
from edge_vision.bundles.store import Bundle, load_bundle
from edge_vision.cascade.stages import CascadeStage, stage_from_bundle
from edge_vision.core.command_line import number_type
from edge_vision.core.printable import printable
from edge_vision.detect.classifier import Classifier
from edge_vision.evaluate import plot
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.fit import plot as fit_plot
from edge_vision.evaluate.fit import run
from edge_vision.evaluate.fit.base import OUTPUT, FrozenFeatures
from edge_vision.evaluate.fit.samples import Samples
from edge_vision.evaluate.fit.teacher import Teacher
from edge_vision.evaluate.fit.write import write_bundle, write_head
from edge_vision.evaluate.reference.detector import BUNDLE
from edge_vision.evaluate.selection import add_command
from edge_vision.offline.bundle_folder import check_replaceable
from edge_vision.offline.output_folder import check_inputs, claim_folder
from edge_vision.offline.progress import ProgressLine
from edge_vision.source.uri import video_path

_EXAMPLES = """\
examples:
  edge-vision evaluate fit-cascade --video monday.mp4 --video tuesday.mp4 --out out/fit
  edge-vision evaluate fit-cascade --video yard.mp4 --labels person --recall 0.95 --out out/fit
  edge-vision evaluate fit-cascade --video yard.mp4 --held-out street.mp4 --name yard --out out/fit
  edge-vision evaluate fit-cascade --video scene:pan_tilt --held-out scene:pan_tilt_holdout \\
      --recall 0.9                                  on constructed sequences
  ros2 launch edge_vision pipeline.launch.py ...   with cascade model: out/fit/person_vehicle_stage

The video needs no labels: the teacher runs on every frame. Its detections are cached, so an interrupted run
can continue. To guarantee a recall of R with a confidence of C takes at least ln(1-C)/ln(R) events: 149 for
0.98 with 0.95. With fewer events, the command fails and writes nothing.
"""
_SHARE = number_type(lambda value: 0 < value < 1, "a number between 0 and 1, such as 0.95")
_LABELS = "person,bicycle,car,motorcycle,bus,truck"


def add_parser(commands: Any) -> None:
    """Add the sub-command to those of `evaluate`."""
    parser = add_command(
        commands,
        "fit-cascade",
        fit_cascade,
        "fit a stage of the cascade to your own video",
        "Fit a stage of the cascade to your own video, with an accurate detector as the teacher.",
        _EXAMPLES,
    )
    add = parser.add_argument
    add(
        "--video",
        action="append",
        required=True,
        metavar="V",
        help="a file, scene:NAME or scene:NAME@SEED; may be repeated",
    )
    add(
        "--held-out",
        action="append",
        default=[],
        metavar="V",
        help="for evaluation only, not for the fit; as --video",
    )
    add("--teacher", default=BUNDLE, metavar="BUNDLE", help="detector (default: %(default)s)")
    add("--base", default="efficientnet_lite0_imagenet", metavar="BUNDLE", help="default: %(default)s")
    add("--features", default=OUTPUT, metavar="NAME", help="the base's pooled output (default: %(default)s)")
    add("--labels", type=_words, default=_words(_LABELS), metavar="A,B", help=f"wanted (default: {_LABELS})")
    add("--recall", type=_SHARE, default=0.98, help="of crops with wanted objects (default: %(default)s)")
    add("--confidence", type=_SHARE, default=0.95, help="default: %(default)s")
    add(
        "--size",
        type=int,
        default=96,
        metavar="PX",
        help="input side, a multiple of 32 (default: %(default)s)",
    )
    add("--crop-share", type=_SHARE, default=0.5, help="side of a crop / shorter side (default: %(default)s)")
    add("--name", type=_name, default="person_vehicle_stage", help="of the bundle (default: %(default)s)")
    add(
        "--head-out", type=_path, metavar="DIR", help="also write the head alone to this folder, for a recipe"
    )
    add("--out", type=_path, default=Path("out/fit"), help="folder for the results (default: %(default)s)")


def _path(text: str) -> Path:
    return Path(text).expanduser()


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise argparse.ArgumentTypeError("expected labels, such as person,car, got none")
    return words


def _name(text: str) -> str:
    if not re.fullmatch(NAME_PATTERN, text):
        raise argparse.ArgumentTypeError(f"expected 1 to 64 of a-z, 0-9 and _, got {text!r}")
    return text


def fit_cascade(options: argparse.Namespace) -> int:
    """Run the command. Raises EdgeVisionError. After Ctrl-C, the teacher's detections stay cached."""
    _check_videos(options.video, options.held_out)
    inputs = map(_identity, (*options.video, *options.held_out))
    claim_folder(options.out, "fit-cascade", ("report.json", "curve.png"), inputs)
    check_replaceable(options.out / options.name)
    check_inputs(options.out / options.name, (options.base, options.teacher))
    request = run.FitRequest(options.recall, options.confidence, options.crop_share)
    teacher = Teacher(options.teacher, options.labels)
    line = ProgressLine(sys.stderr)
    with tempfile.TemporaryDirectory() as temporary:
        base = FrozenFeatures(load_bundle(options.base), options.features, options.size, Path(temporary))
        clips = [run.load_clip(path, teacher, line) for path in options.video]
        run.check_event_count(clips, request)
        held_out = [run.load_clip(path, teacher, line) for path in options.held_out]
        samples = Samples.joined([run.samples_of(clip, base, options.crop_share, line) for clip in clips])
        line.end()
        fitted = run.fit(samples, request)
        figures = {
            "labels": options.labels,
            **run.provenance(base.bundle, teacher.bundle, clips, held_out),
            "calibration": fitted.figures,
        }
        bundle = write_bundle(options.out, options.name, base, fitted, options.labels, figures)
        figures["replayed"] = _replayed(bundle, clips, held_out, line)
        bundle = write_bundle(options.out, options.name, base, fitted, options.labels, figures)
    if options.head_out:
        write_head(options.head_out, options.name, fitted, figures)
    _report(options.out, bundle, fitted, figures)
    return 0


def _check_videos(videos: list[str], held_out: list[str]) -> None:
    both = {_identity(video) for video in videos} & {_identity(video) for video in held_out}
    if both:
        raise EvaluateError(
            f"expected held-out clips that are not fitted on, got {both.pop()} in both; remove it from one"
        )
    if len({run.clip_name(video) for video in (*videos, *held_out)}) < len(videos) + len(held_out):
        raise EvaluateError(
            "expected videos with different file names, as the results are keyed by name; rename one"
        )


def _identity(video: str) -> str:
    """The real path of a video or file:// URL; a sequence's name unchanged."""
    return video if video.startswith(run.SEQUENCE_PREFIX) else os.path.realpath(video_path(video))


def _replayed(
    bundle: Bundle, clips: list[run.FitClip], held_out: list[run.FitClip], line: ProgressLine
) -> dict[str, Any]:
    """Figures of the finished bundle in the cascade, on one thread."""
    session, report = open_session(bundle, "onnxruntime", BackendRequest(threads=1), strict=True)
    try:
        classifier = Classifier.from_bundle(bundle, session)
        classifier.warm_up()

        def stage() -> CascadeStage:
            return stage_from_bundle(bundle, classifier)

        figures = {
            "calibration_blocks": run.replay_clips(clips, stage(), line, held_out=False),
            "held_out": run.replay_clips(held_out, stage(), line, held_out=True) if held_out else {},
            "backend": f"{report.actual.backend} {report.actual.version}, 1 thread",
        }
    finally:
        session.close()
    line.end()
    return figures


def _report(out: Path, bundle: Bundle, fitted: run.FittedStage, figures: dict[str, Any]) -> None:
    """Print the result and write report.json and the plot."""
    stage, found = bundle.manifest.stage, fitted.figures
    assert stage is not None
    rejected = found["rejected_nothing_share"]
    print(
        f"recall >= {found['recall']:g} with {found['confidence']:g} confidence on {found['events']} events "
        f"({found['events_missed']} missed, {found['events_allowed_missed']} allowed); rejected crops "
        f"without a wanted object: {'unknown' if rejected is None else f'{rejected:.0%}'}; reject_below "
        f"{stage.reject_below:g}, accept_from {stage.accept_from:g}"
    )
    for kind in ("calibration_blocks", "held_out"):
        for name, one in figures["replayed"][kind].items():
            print(printable(_line(f"{name}, {kind.replace('_', ' ')}", one)))
    report = out / "report.json"
    report.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")
    files = [bundle.folder, report]
    missing = plot.missing_package("make evaluate-gate")
    if missing:
        print(missing, file=sys.stderr)
    else:
        fit_plot.draw(found, stage.reject_below, out / "curve.png")
        files.append(out / "curve.png")
    print(", ".join(map(str, files)))


def _line(title: str, one: dict[str, Any]) -> str:
    recall = "-" if one["recall"] is None else f"{one['recall']:.1%}"
    took = "-" if one["crop_cpu_ms"] is None else f"{one['crop_cpu_ms']:.1f} ms of CPU"
    return (
        f"{title}: {one['frames']} frames, {one['passed']} passed the gate, {one['accepted']} accepted; "
        f"recall on the {one['wanted']} passed frames with something wanted {recall}; a crop takes {took}"
    )
