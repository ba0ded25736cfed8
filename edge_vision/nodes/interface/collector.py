"""The interface of the collector node. Imports no ROS."""

from __future__ import annotations

from collections.abc import Sequence

from edge_vision.dataset.selection import REASONS
from edge_vision.nodes.interface.types import (
    COMMON,
    COMPRESSED_IMAGE,
    LABEL_INFO,
    RESET,
    STATUS,
    VISION_INFO,
    NodeSpec,
    Param,
    Range,
    Topic,
    at_configure,
)


def check_reasons(values: Sequence[str]) -> None:
    """Raises ValueError unless these are reasons to keep a frame."""
    if unknown := [one for one in values if one not in REASONS]:
        raise ValueError(f"expected some of {', '.join(REASONS)}, got '{unknown[0]:.80}'")


COLLECTOR = NodeSpec(
    "collector",
    "Keeps frames that are worth a label, in the pipeline's process, with `collect: true`.",
    (
        at_configure(
            "folder",
            "",
            "Keeps the pictures in this folder, in which {camera} stands for the camera's name; empty = "
            "dataset/CAMERA in the cache folder.",
        ),
        Param(
            "reasons",
            list(REASONS),
            f"Keeps frames for these reasons: {', '.join(REASONS)}.",
            validate=check_reasons,
        ),
        Param(
            "score_margin",
            0.1,
            "Counts an object whose score differs from the threshold by less as low_margin.",
            Range("0..1", 0.0, 1.0),
        ),
        Param(
            "daily_per_class",
            20,
            "Keeps at most so many pictures per day (UTC), reason and class.",
            Range("pictures", 1, 100000),
        ),
        Param(
            "random_per_hour",
            4.0,
            "Draws so many frames per hour at random, on average; 0 = none.",
            Range("1/h", 0.0, 3600.0),
        ),
        Param(
            "min_interval_ms",
            2000.0,
            "Waits this long between two frames of the same reason.",
            Range("ms", 0.0, 3600000.0),
        ),
        Param(
            "max_mb",
            500.0,
            "Limits the size of the folder; the oldest pictures without a review are removed.",
            Range("MB", 1.0, 1048576.0),
        ),
        at_configure(
            "blur_faces",
            False,
            "Covers the heads of persons, and faces that OpenCV finds, before a picture is written.",
        ),
        at_configure(
            "face_model",
            "",
            "Finds faces with this YuNet .onnx file; empty = with the cascades that OpenCV ships.",
        ),
        *COMMON,
    ),
    (
        Topic("label_info", LABEL_INFO, "in", "Names, threshold."),
        Topic("vision_info", VISION_INFO, "in", "The model that proposes."),
        Topic("updater/disagreements", COMPRESSED_IMAGE, "in", "Frames to keep."),
        STATUS,
    ),
    (RESET,),
)
