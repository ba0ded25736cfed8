"""`evaluate schedule --live`: a clip in the running pipeline, with a fixed interval."""

from __future__ import annotations

from pathlib import Path

from model_cases import DETECTOR, bundle_or_skip, clip_or_skip

from edge_vision.evaluate.condition_data import load_condition_data
from edge_vision.evaluate.reference.clips import clip_condition
from edge_vision.evaluate.reference.detector import ReferenceDetector
from edge_vision.evaluate.schedule import live
from edge_vision.evaluate.selection import Selected


def test_a_fixed_interval_publishes_detections_and_predicted_boxes(domain: int, tmp_path: Path) -> None:
    bundle_or_skip(DETECTOR)
    video = clip_or_skip("vtest.avi")
    condition, n = clip_condition(Path(video)), 16
    data = load_condition_data(condition, n, ReferenceDetector(), lambda _: None)
    selected = Selected(condition, video)
    clip = live.LiveClip(selected, data, [], tmp_path)
    program = live._program("every_fourth", {"interval_frames": 4}, [])
    shown: list[int] = []
    result = clip.play("every_4", program, lambda done, total: shown.append(done))
    assert result["process_cpu_s_per_1000"] > 0.0 and shown[-1] >= n
    # At 10 Hz even a loaded machine infers one frame in four; the others show its tracks. What is published
    # before DDS has matched its subscriber is lost.
    assert result["inferred_share"] in (0.1875, 0.25), result
    assert result["frame_f1"] > 0.5
