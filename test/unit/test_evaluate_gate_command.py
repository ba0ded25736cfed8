"""`evaluate gate`: refused arguments, third-party gates, the cached reference, and one short real run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import evaluate_cases
import numpy as np
import pytest
from box_cases import boxes
from evaluate_cases import needs_clips
from model_cases import DETECTOR, bundle_or_skip

from edge_vision.bundles.store import cache_dir, sha256_of
from edge_vision.core.detections import Detections
from edge_vision.core.frame import Frame
from edge_vision.evaluate import command, plot
from edge_vision.evaluate.conditions import QUICK_FRAMES, Condition, ConditionFrame, GroundTruth
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.gate.gate_run import GateRun
from edge_vision.evaluate.gate.recorded_gate import OURS, GateRecord, check_gate, recorded_gate
from edge_vision.evaluate.reference import clips
from edge_vision.evaluate.reference import detector as reference_module
from edge_vision.evaluate.reference.clips import clip_condition, without_removed
from edge_vision.evaluate.reference.detector import Stopped, reference_of
from edge_vision.evaluate.reference.events import Entry
from edge_vision.evaluate.selection import select_conditions

REPO = Path(__file__).resolve().parents[2]


def _video(path: Path, n: int) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for at in range(n):
        writer.write(np.full((48, 64, 3), 10 * at, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--video", "nowhere.mp4"], "nowhere.mp4"),
        (["--video", "{tmp}/text.avi"], "text.avi"),
        (["--video", "{tmp}/empty.avi"], "empty.avi"),
        (["--conditions", "statik", "--split", "tune"], "got statik"),
        (["--gate", "FrameGate"], "expected a gate as module:Class"),
        (["--gate", "no_such_module:Gate"], "cannot be imported: ModuleNotFoundError"),
        (["--gate", "evaluate_cases:Absent"], "cannot be imported: AttributeError"),
        (["--gate", "evaluate_cases:NoDecide"], "has no method decide"),
        (["--gate", "evaluate_cases:NeedsMore"], "cannot be made without arguments: TypeError"),
        (["--gate", "evaluate_cases:RaisesAtOnce"], "fails on its first frame: RuntimeError: not today"),
        (["--gate", "evaluate_cases:Nonsense"], "expected a GateDecision or a bool"),
        (["--gate", "evaluate_cases:BadMotion"], "expected camera_motion (3, 3)"),
        (["--metric", "no_such_module:Mine"], "metric 'no_such_module:Mine' cannot be imported"),
    ],
)
def test_unusable_arguments_end_with_status_2_and_a_message(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "text.avi").write_text("no video")
    _video(tmp_path / "empty.avi", 0)
    if not (tmp_path / "empty.avi").exists():
        (tmp_path / "empty.avi").touch()
    given = [text.format(tmp=tmp_path) for text in arguments]
    assert command.main(["gate", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("evaluate: ")
    assert message in error
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", [["--jobs", "0"], ["--split", "train"], ["--frames", "3"]])
def test_usage_errors_end_with_status_2(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        command.main(["gate", *arguments])
    assert caught.value.code == 2


def _selected(*arguments: str) -> list[str]:
    options = command.build_parser().parse_args(["gate", *arguments])
    selected = select_conditions(options.conditions, options.split, options.video)
    return [condition.name for condition, _ in selected]


def test_conditions_are_selected_by_name_kind_split_and_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path / "without_clips"))
    assert _selected("--conditions", "static", "--split", "tune") == ["static"]
    assert _selected("--conditions", "static") == ["static", "static_holdout"]
    assert _selected("--conditions", "static_holdout", "night") == ["static_holdout", "night"]
    clip = str(_video(tmp_path / "clip.avi", 5))
    assert _selected("--video", clip) == ["clip"]
    assert _selected("--video", clip, "--video", clip) == ["clip", "clip_2"]
    assert _selected("--video", str(_video(tmp_path / "static.avi", 5))) == ["static_2"]
    assert _selected("--video", clip, "--conditions", "static", "clip") == [
        "static",
        "static_holdout",
        "clip",
    ]


def _record(name: str, n: int) -> GateRecord:
    runner = recorded_gate(f"evaluate_cases:{name}")
    for at in range(n):
        runner.process(Frame(np.zeros((48, 64, 3), np.uint8), at + 1, ""), boxes())
    return runner.record


def test_a_gate_may_return_a_bool() -> None:
    record = _record("Alternating", 4)
    assert record.passed == [True, False, True, False]
    assert record.motions == [None] * 4
    assert record.reasons == {"passed": 2, "skipped": 2}


def test_a_frame_passes_if_the_gate_raises_and_the_error_is_recorded() -> None:
    record = _record("RaisesLater", 5)
    assert record.passed == [True, False, True, False, True]
    assert record.errors == 1
    assert record.first_error == "ZeroDivisionError: three is too much"


def test_an_invalid_decision_is_refused() -> None:
    with pytest.raises(EvaluateError, match="got 'maybe'"):
        _record("Nonsense", 1)


def test_a_gate_receives_the_detections_of_frames_that_it_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[tuple[int, int]] = []

    class Receiving(evaluate_cases.Alternating):
        def inferred(self, stamp_ns: int, found: Detections) -> None:
            received.append((stamp_ns, len(found)))

    monkeypatch.setattr(evaluate_cases, "Alternating", Receiving)
    runner = recorded_gate("evaluate_cases:Alternating")
    for at in range(4):
        frame = Frame(np.zeros((48, 64, 3), np.uint8), at + 1, "")
        runner.process(frame, boxes(*[evaluate_cases.HERE] * at))
    assert received == [(1, 0), (3, 2)]
    check_gate(OURS)


class _Dots:
    """A source whose frames are black."""

    def __init__(self, n: int) -> None:
        self.n = n

    def render(self) -> Iterator[tuple[np.ndarray, GroundTruth]]:
        for at in range(self.n):
            yield np.zeros((48, 64, 3), np.uint8), [(at % 2, (1.0, 2.0, 30.0, 40.0), "dot")]

    def fingerprint(self) -> str:
        return "dots"


class _CountingDetector:
    """Finds as many boxes as the number of its call modulo 3, and a low-score one on each second call."""

    def __init__(self) -> None:
        self.bundle = bundle_or_skip(DETECTOR)
        self.calls = 0

    def detect(self, frame: ConditionFrame) -> tuple[Detections, Detections, float]:
        self.calls += 1
        low_score = boxes(*[evaluate_cases.THERE] * (self.calls % 2))
        return boxes(*[evaluate_cases.HERE] * (self.calls % 3)), low_score, 0.01 * self.calls


def _dots(n: int) -> Condition:
    return Condition("dots", "dots", True, "tune", 30.0, n, lambda: _Dots(n))


def test_an_interrupted_reference_is_cached_and_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector: Any = _CountingDetector()
    monkeypatch.setattr(reference_module, "cache_dir", lambda: tmp_path)

    def stop_at_4(phase: str) -> None:
        if detector.calls == 4:
            raise Stopped

    with pytest.raises(Stopped):
        reference_of(_dots(9), 9, detector, stop_at_4)
    whole = reference_of(_dots(9), 9, detector, lambda _: None)
    assert detector.calls == 9
    again = reference_of(_dots(9), 7, detector, lambda _: None)
    assert detector.calls == 9
    assert [len(found) for found in whole.detections] == [1, 2, 0, 1, 2, 0, 1, 2, 0]
    assert [len(found) for found in again.detections] == [1, 2, 0, 1, 2, 0, 1]
    assert [len(low_score) for low_score in whole.low_score] == [1, 0, 1, 0, 1, 0, 1, 0, 1]
    assert whole.low_score[0].xyxy_px.tolist() == [list(evaluate_cases.THERE)]
    assert again.size_px == (64, 48)
    assert [list(objects) for objects in again.ground_truth] == [[0], [1], [0], [1], [0], [1], [0]]
    assert again.ground_truth[0][0].tolist() == [1, 2, 30, 40]
    assert again.stamps_ns.tolist() == [round((at + 1) * 1e9 / 30) for at in range(7)]
    assert whole.detector_cpu_s == pytest.approx(0.05)


def test_a_damaged_reference_is_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector: Any = _CountingDetector()
    monkeypatch.setattr(reference_module, "cache_dir", lambda: tmp_path)
    reference_of(_dots(3), 3, detector, lambda _: None)
    (file,) = (tmp_path / "evaluate").iterdir()
    file.write_bytes(file.read_bytes()[:100])
    assert len(reference_of(_dots(3), 3, detector, lambda _: None)) == 3
    assert detector.calls == 6


def test_a_seed_selects_another_sequence_of_a_kind() -> None:
    names = [condition.name for condition, _ in select_conditions(["pan_tilt@7", "static"], "all", [])]
    assert names == ["static", "static_holdout", "pan_tilt@7"]
    for wrong in ("nothing@7", "pan_tilt@", "pan_tilt@x"):
        with pytest.raises(EvaluateError, match="NAME@SEED for another sequence"):
            select_conditions([wrong], "all", [])


def test_a_source_without_frames_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference_module, "cache_dir", lambda: tmp_path)
    with pytest.raises(EvaluateError, match="got none from 'dots'"):
        reference_of(_dots(0), 3, _CountingDetector(), lambda _: None)  # type: ignore[arg-type]


class _StandingObject(_CountingDetector):
    """Finds the same box on every image."""

    def detect(self, frame: ConditionFrame) -> tuple[Detections, Detections, float]:
        return boxes((5.0, 5.0, 30.0, 40.0)), boxes(), 0.01


def test_a_gate_without_camera_motion_publishes_no_tracks_as_in_the_detector_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector: Any = _StandingObject()
    monkeypatch.setattr(reference_module, "cache_dir", lambda: tmp_path)
    run = GateRun(gates=("evaluate_cases:Alternating",))
    result = run.evaluate(_dots(12), detector, lambda _: None)
    figures = result["methods"]["evaluate_cases:Alternating"]
    # 6 of 12 frames are inferred, and nothing is published between them.
    assert figures["frame_f1"] == pytest.approx(2 * 6 / (6 + 12))
    assert result["methods"]["fixed_tracker_2"]["frame_f1"] == 1.0
    assert figures["fidelity"] == pytest.approx(figures["frame_f1"] / result["noise_ceiling"])


def test_a_clip_has_its_own_rate_and_no_ground_truth(tmp_path: Path) -> None:
    condition = clip_condition(_video(tmp_path / "clip.avi", 5))
    frames = list(condition.frames())
    assert [frame.stamp_ns for frame in frames] == [100_000_000 * (at + 1) for at in range(5)]
    assert not condition.constructed
    assert not any(frame.truth for frame in frames)


def test_entries_that_were_reviewed_as_false_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = (np.array(box, np.float32) for box in (evaluate_cases.HERE, evaluate_cases.THERE))
    entries = [Entry(1, 10, 20, 10), Entry(2, 10, 20, 10), Entry(3, 14, 20, 14)]
    object_boxes = [{1: here, 2: there, 3: here}] * 30
    clip = _video(tmp_path / "clip.avi", 3)
    kept, note = without_removed(clip, entries, object_boxes)
    assert kept == entries
    assert "not reviewed" in note
    removed = [{"frame": 11, "box": list(evaluate_cases.NEAR), "label": "person", "why": "a shadow"}]
    listed = {"how": "by eye", "clips": {sha256_of(clip): {"clip": "clip.avi", "removed": removed}}}
    (tmp_path / "removed.json").write_text(json.dumps(listed))
    monkeypatch.setattr(clips, "REMOVED_FILE", tmp_path / "removed.json")
    kept, note = without_removed(clip, entries, object_boxes)
    # One frame off and almost the same box: it is that one. The third came four frames later.
    assert kept == [entries[1], entries[2]]
    assert note.startswith("1 of 3 entries were reviewed as false")
    removed[0]["frame"] = None  # There all the time.
    (tmp_path / "removed.json").write_text(json.dumps(listed))
    assert without_removed(clip, entries, object_boxes)[0] == [entries[1]]


def test_the_list_of_false_entries_gives_method_and_reasons() -> None:
    listed = json.loads(clips.REMOVED_FILE.read_text())
    assert len(listed["how"]) > 100
    for sha256, clip in listed["clips"].items():
        path = cache_dir() / "video" / clip["clip"]
        assert not path.is_file() or sha256_of(path) == sha256
        assert all(one["why"] and len(one["box"]) == 4 for one in clip["removed"])
        assert len(clip["removed"]) <= clip["entries"]


def test_a_missing_plot_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plot.importlib.util, "find_spec", lambda name: None)
    assert "matplotlib" in (plot.missing_package("make evaluate-gate") or "")


@needs_clips
def test_a_short_real_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle_or_skip(DETECTOR)
    out = tmp_path / "gate"
    arguments = ["gate", "--conditions", "static", "--split", "tune", "--quick", "--jobs", "1"]
    arguments += ["--metric", "test_evaluate_metrics:BoxCount", "--gate", "evaluate_cases:RaisesLater"]
    assert command.main([*arguments, "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    condition = report["conditions"]["static"]
    assert condition["constructed"] is True
    assert condition["frames"] == QUICK_FRAMES
    assert condition["events"] >= 2
    methods = condition["methods"]
    every = methods["every_frame"]
    assert (every["recall_100ms"], every["delay_ms_max"], every["frame_f1"]) == (1.0, 0.0, 1.0)
    assert methods["fixed_tracker_5"]["inferred_share"] == pytest.approx(0.2)
    assert methods["fixed_tracker_5"]["frame_f1"] > methods["fixed_5"]["frame_f1"]
    assert sum(methods["gate"]["reasons"].values()) == QUICK_FRAMES
    assert methods["evaluate_cases:RaisesLater"]["inferred_share"] == pytest.approx(0.5, abs=0.01)
    assert "ZeroDivisionError" in "".join(condition["notes"])
    assert {"gate", "evaluate_cases:RaisesLater"} == set(condition["verdict"])
    assert report["hashes"]["model"] and report["complete"] and report["quick"]
    assert report["headline"] in capsys.readouterr().out
    assert (out / "gate.png").exists() == (plot.missing_package("make evaluate-gate") is None)
    head, _, row, other = (out / "table.md").read_text().splitlines()
    assert row.startswith("| static | gate | ") and other.startswith("| static | RaisesLater | ")
    assert head.count("|") == row.count("|") and head.endswith("| boxes | missed |")
    assert methods["every_frame"]["box_count"] > methods["gate"]["box_count"] * 0.5 > 0


@needs_clips
def test_ctrl_c_stops_without_a_traceback(tmp_path: Path) -> None:
    bundle_or_skip(DETECTOR)
    arguments = ["gate", "--conditions", "static", "long_quiet", "--split", "tune", "--jobs", "1"]
    command = [sys.executable, "-u", "-m", "edge_vision", "evaluate", *arguments, "--out", str(tmp_path)]
    process = subprocess.Popen(
        command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "long_quiet" in line and "left" in line:
            break
    process.send_signal(signal.SIGINT)
    rest = process.stdout.read()
    assert process.wait() == 130, "".join(lines) + rest
    assert "Traceback" not in rest
    assert "stopped before a condition was done" in rest
