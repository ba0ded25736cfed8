"""The demo's record, images and files, without ROS."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_vision.cli.demo import command, comparison
from edge_vision.cli.demo.comparison import EVERY_FRAME, SCHEDULED, write_detections
from edge_vision.cli.demo.live import status_line
from edge_vision.cli.demo.recording import record as record_camera
from edge_vision.cli.demo.video import STRIP_PX, VideoError, VideoFile, annotate
from edge_vision.core.child_process import child_environment
from edge_vision.core.detections import Detections
from edge_vision.core.printable import printable_output
from edge_vision.diagnostics.process_usage import ProcessUsage
from edge_vision.evaluate.live import pipeline_process
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.evaluate.live.pipeline_process import PipelineProcess
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.offline.progress import ProgressLine
from edge_vision.offline.provenance import hash_of, machine, versions, write_json
from edge_vision.source.uri import SourceError

LABELS = ("person", "bicycle", "car")
USAGE = ProcessUsage(12.4, 3.0, 200.2, 7)
STATUS = {
    "ledger.received": "5",
    "ledger.inferred": "3",
    "ledger.gated": "2",
    "ledger.gated.still": "2",
    "ledger.in_flight": "0",
    "inference_ms.p50": "10.0",
    "inference_ms.p95": "12.0",
    "inference_ms.p99": "13.0",
    "backend.requested.backend": "auto",
    "backend.actual.backend": "onnxruntime 1.0",
    "backend.actual.device": "cpu",
    "model": "ssd 1.0.0",
}


class Clock:
    """A clock that the test sets."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def objects_of(*class_ids: int) -> Detections:
    xyxy = np.array([[10 + 30 * i, 20, 35 + 30 * i, 60] for i in range(len(class_ids))], np.float32).reshape(
        -1, 4
    )
    return Detections(xyxy, np.full(len(class_ids), 0.75, np.float32), np.array(class_ids, np.int32))


def record_of_a_clip(clock: Clock | None = None) -> LiveRecord:
    """Five frames at 10 Hz, of which 0, 2 and 3 were inferred, and 1 and 4 have the boxes of 0 and 2."""
    clock = clock or Clock()
    record = LiveRecord(clock)
    record.on_labels(LABELS)
    for index in range(5):
        record.on_source(1_000 + index, index)
    for index, found in ((0, objects_of(0)), (2, objects_of(0, 2)), (3, objects_of())):
        clock.now_s += 0.1
        record.on_detections(1_000 + index, "camera", found, 10.0 + index)
    for index, found in ((1, objects_of(0)), (4, objects_of(0, 2))):
        record.on_tracks(1_000 + index, found)
    for index, reason in enumerate(("first", "predicted", "interval", "urgent", "predicted")):
        record.on_gate_event(1_000 + index, reason != "predicted", reason)
    record.on_status("detector", 0, "running", STATUS)
    record.on_status("source", 0, "finished", {"situation": "finished", "sent": "5"})
    return record


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (160, 120))
    for index in range(5):
        writer.write(np.full((120, 160, 3), 40 * index, np.uint8))
    writer.release()
    return path


@pytest.fixture
def child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PipelineProcess]:
    """A PipelineProcess whose executable is a Python that sleeps."""
    script = "import time\nprint('up', flush=True)\ntime.sleep(60)"
    real = pipeline_process.subprocess.Popen
    monkeypatch.setattr(
        pipeline_process.subprocess,
        "Popen",
        lambda command, **options: real([sys.executable, "-c", script], **options),
    )
    started = PipelineProcess([], tmp_path / "log")
    yield started
    started.stop()


def test_detections_are_assigned_to_frames_by_stamp() -> None:
    found = record_of_a_clip().by_frame()
    assert {index: found[index].class_ids.tolist() for index in found} == {0: [0], 2: [0, 2], 3: []}


def test_a_detection_without_a_source_event_belongs_to_no_frame() -> None:
    record = record_of_a_clip()
    record.on_detections(9_999, "camera", objects_of(1), 5.0)
    assert sorted(record.by_frame()) == [0, 2, 3]


def test_the_frame_accounting_is_read_from_the_status() -> None:
    record = record_of_a_clip()
    assert record.ledger == {
        "received": 5, "inferred": 3, "gated": 2, "rejected": 0, "superseded": 0, "failed": 0, "in_flight": 0,
    }  # fmt: skip
    assert record.reasons == {"gated.still": 2}


def test_values_that_become_unavailable_keep_their_last_figure() -> None:
    record = record_of_a_clip()
    record.on_status("detector", 1, "unconfigured", {"model": "unavailable", "ledger.received": "6"})
    assert record.statuses["detector"]["model"] == "ssd 1.0.0"
    assert record.ledger["received"] == 6


@pytest.mark.parametrize(
    ("source", "detector", "over"),
    [
        ({"situation": "playing", "sent": "5"}, {}, False),
        ({"situation": "finished", "sent": "5"}, {}, True),
        ({"situation": "finished", "sent": "6"}, {}, False),
        ({"situation": "finished", "sent": "5"}, {"ledger.in_flight": "1"}, False),
    ],
)
def test_finished_only_if_every_frame_is_accounted_for(
    source: dict[str, str], detector: dict[str, str], over: bool
) -> None:
    record = record_of_a_clip()
    record.on_status("source", 0, "", source)
    record.on_status("detector", 0, "", {**STATUS, **detector})
    assert record.finished is over


def test_rates_and_ages_of_a_record() -> None:
    clock = Clock()
    record = record_of_a_clip(clock)
    assert record.age_ms() == pytest.approx({"p50": 12.0, "p95": 12.9, "p99": 12.98})
    assert record.age_ms(last=1) == pytest.approx({"p50": 13.0, "p95": 13.0, "p99": 13.0})
    assert record.inferred_hz() == pytest.approx(3 / 0.5)
    clock.now_s += 60
    assert record.inferred_hz() == 0.0


def test_an_empty_record_has_no_figures() -> None:
    record = RunRecord()
    assert record.age_ms() is None and record.inferred_hz() == 0.0 and not record.finished
    assert set(record.ledger.values()) == {0}


def test_errors_are_kept_with_their_duration() -> None:
    clock = Clock()
    record = RunRecord(clock)
    record.on_status("detector", 2, "cannot configure: no bundle", {})
    clock.now_s += 7
    record.on_status("detector", 1, "unconfigured", {})
    assert record.error_duration_s() == 7
    assert record.errors == {"detector": "cannot configure: no bundle"}


def test_status_line_with_and_without_usage() -> None:
    line = status_line(record_of_a_clip(), USAGE)
    assert line == "frames 5  inferred 3  gated 2  6.0 inferred/s  age p95 13 ms  CPU 12 %  RSS 200 MB"
    unknown = status_line(record_of_a_clip(), ProcessUsage(None, None, None, None))
    assert "CPU unavailable" in unknown and "RSS unavailable" in unknown


def test_the_last_status_line_has_no_rates_of_a_partial_window() -> None:
    line = status_line(record_of_a_clip(), USAGE, ended=True)
    assert "inferred/s" not in line and "CPU" not in line and "RSS" in line


def test_status_line_while_the_pipeline_starts() -> None:
    record = RunRecord()
    assert status_line(record, USAGE) == "starting: loading"
    record.on_status("source", 1, "opening", {})
    assert status_line(record, USAGE) == "starting: source opening"


def test_the_progress_line_is_plain_lines_without_a_terminal() -> None:
    stream = io.StringIO()
    line = ProgressLine(stream)
    for text in ("one", "two"):
        line.show(text)
    line.end("last")
    assert stream.getvalue() == "one\nlast\n"


def test_the_progress_line_rewrites_itself_on_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    line = ProgressLine(stream)
    line.show("one")
    line.end("two")
    written = stream.getvalue()
    assert written.startswith("\rone") and "\rtwo" in written and written.endswith("\n")
    assert written.count("\n") == 1


def test_detections_are_written_one_line_per_frame(tmp_path: Path) -> None:
    write_detections(record_of_a_clip(), tmp_path / "d.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert [line["frame_index"] for line in lines] == [0, 2, 3]
    assert lines[1] == {
        "stamp_ns": 1002,
        "frame_id": "camera",
        "frame_index": 2,
        "boxes_xyxy_px": [[10.0, 20.0, 35.0, 60.0], [40.0, 20.0, 65.0, 60.0]],
        "labels": ["person", "car"],
        "class_ids": [0, 2],
        "scores": [0.75, 0.75],
    }


FULL_DISK = """
import resource, sys
from pathlib import Path
from edge_vision.cli.demo.command import write_results
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.evaluate.live.run_record import RunRecord
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
write_results(Path(sys.argv[1]), RunRecord(), {"key": "x" * 200})
"""


def test_a_full_disk_is_named_and_leaves_no_part_of_a_result(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, env=child_environment())
    assert "got: File too large; free space there" in done.stderr.splitlines()[-1]
    assert [file.name for file in tmp_path.iterdir()] == ["detections.jsonl"]


def test_the_progress_line_shows_control_characters(capsys: pytest.CaptureFixture[str]) -> None:
    with printable_output():
        ProgressLine().end("loading \x1b[2Ja\rb\nc")
    assert capsys.readouterr().out == "loading \\u001b[2Ja\\rb\\nc\n"


def test_the_child_is_stopped_and_its_log_kept(child: PipelineProcess) -> None:
    deadline = time.monotonic() + 60
    while not child.last_lines() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert child.last_lines() == ["up"] and child.returncode is None
    assert child.measure().rss_mb and child.peak_mb
    child.stop()
    assert child.returncode is not None
    assert child.measure() == child.usage


def test_the_child_does_not_inherit_the_mark_of_the_ros_wheels(child: PipelineProcess) -> None:
    environment = Path(f"/proc/{child.pid}/environ")
    if environment.exists():
        assert b"_ROS_WHEELS_BOOTSTRAP_COMPLETE" not in environment.read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "does not exist"), (b"", "expected a video"), (b"no video at all" * 99, "expected a video")],
)
def test_a_source_without_images_is_refused_at_once(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "clip.avi"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SourceError, match=message):
        command.check_source(str(path))


def test_a_missing_source_is_an_error_before_the_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(["--source", str(tmp_path / "none.avi"), "--out", str(tmp_path / "out")]) == 1
    assert "does not exist" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("seconds", ["0", "-3", "nan", "soon"])
def test_bad_seconds_are_refused(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(["--seconds", seconds])
    assert raised.value.code == 2 and "seconds" in capsys.readouterr().err


def test_without_a_cache_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("EDGE_VISION_CACHE", str(tmp_path))
    assert command.main(["--out", str(tmp_path / "out")]) == 1
    assert "make demo" in capsys.readouterr().err


def test_provenance_and_atomic_results(tmp_path: Path) -> None:
    assert {"cpu", "cores", "ram_mb", "load_1m"} <= machine().keys()
    assert versions()["edge_vision"] and "numpy" in versions()
    assert hash_of(tmp_path) == "unavailable"
    write_json(tmp_path / "deep" / "x.json", {"a": 1})
    assert json.loads((tmp_path / "deep" / "x.json").read_text()) == {"a": 1}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["x.json"]
    assert (tmp_path / "deep" / "x.json").stat().st_mode & 0o777 == 0o644


def every_frame() -> LiveRecord:
    """A run of the same clip in which every frame was inferred; an object enters on frame 1."""
    record = LiveRecord(Clock())
    for index in range(5):
        record.on_source(2_000 + index, index)
        record.on_detections(2_000 + index, "camera", objects_of(0, *([2] * (index > 0))), 5.0)
    ledger = {**STATUS, "ledger.inferred": "5", "ledger.gated": "0"}
    record.on_status("detector", 0, "running", ledger)
    return record


TIMES_S = [index / 10 for index in range(5)]
PROMISE = {"max_delay_ms": 150.0, "min_fidelity": 0.9}


def report_of(child: PipelineProcess, **second: Any) -> dict[str, Any]:
    child.measure()
    first, scheduled = every_frame(), record_of_a_clip()
    runs = {name: comparison.run_figures(one, child) for name, one in
            ((EVERY_FRAME, first), (SCHEDULED, scheduled))}  # fmt: skip
    runs[EVERY_FRAME].update(cpu_s=4.0, cpu_s_per_1000=800.0)
    runs[SCHEDULED].update({"cpu_s": 2.0, "cpu_s_per_1000": 400.0, **second})
    agreement = comparison.agreement(first, scheduled, TIMES_S, 100.0)
    return {"preset": "balanced", "promise": PROMISE, "runs": runs, "agreement": agreement}


def test_the_second_run_is_compared_with_the_first_frame_by_frame() -> None:
    found = comparison.agreement(every_frame(), record_of_a_clip(), TIMES_S, 100.0)
    # The object of frame 1 is first published on frame 2; 6 of 9 and 6 boxes match.
    assert (found["frames"], found["events"], found["recall"]) == (5, 1, 1.0)
    assert found["delay_ms_p95"] == pytest.approx(100.0) and found["frame_f1"] == pytest.approx(12 / 15)


def test_frames_that_the_first_run_lost_are_not_compared() -> None:
    reference = every_frame()
    reference.detections = [one for one in reference.detections if one.stamp_ns != 2_003]
    found = comparison.agreement(reference, record_of_a_clip(), TIMES_S, 100.0)
    assert found["frames"] == 4 and found["frame_f1"] == pytest.approx(12 / 13)


def test_frames_beyond_the_limit_do_not_count(child: PipelineProcess) -> None:
    """A run ends some frames after its limit, one run later than the other."""
    record = LiveRecord(Clock(), limit=3)
    for index in range(5):
        record.on_source(2_000 + index, index)
        record.on_detections(2_000 + index, "camera", objects_of(0), 5.0)
    record.on_status("detector", 0, "running", {**STATUS, "ledger.inferred": "5", "ledger.gated": "0"})
    figures = comparison.run_figures(record, child)
    assert (figures["frames"], figures["detector_runs"], figures["ledger"]["received"]) == (3, 3, 5)


def test_recall_is_judged_at_the_delay_that_was_promised() -> None:
    recalls = [
        comparison.agreement(every_frame(), record_of_a_clip(), TIMES_S, limit_ms)["recall"]
        for limit_ms in (99.0, 100.0)
    ]
    assert recalls == [0.0, 1.0]


@pytest.mark.parametrize(("ceiling", "share", "missed"), [(0.85, "0.94", False), (0.95, "0.84", True)])
def test_a_note_compares_frame_f1_with_min_fidelity(
    ceiling: float, share: str, missed: bool, child: PipelineProcess
) -> None:
    report = report_of(child)
    report["agreement"]["noise_ceiling"] = ceiling
    (note,) = [note for note in comparison.notes(report) if "min_fidelity is 0.9" in note]
    assert f"Frame F1 0.800 is {share} of the detector's" in note
    assert note.endswith("which is missed on this clip.") is missed
    report["agreement"]["noise_ceiling"] = 0.79
    assert not [note for note in comparison.notes(report) if "min_fidelity" in note]


def test_the_table_shows_the_figures_of_the_report(child: PipelineProcess) -> None:
    text = comparison.table(report_of(child))
    rows = {line[:30].strip(): line[30:].split() for line in text.splitlines()}
    assert rows["frames"] == ["5", "5"] and rows["detector runs"] == ["5", "(100", "%)", "3", "(60", "%)"]
    assert rows["CPU of the whole process"] == ["4.00", "s", "2.00", "s", "(50", "%)"]
    assert rows["CPU per 1000 frames"] == ["800.0", "s", "400.0", "s", "(50", "%)"]
    assert rows["objects found within 150 ms"] == ["reference", "1", "of", "1"]
    assert rows["frame F1"] == ["reference", "0.800"]
    assert rows["age of detections, p95"] == ["5", "ms", "13", "ms"]


def test_what_was_not_reported_is_unavailable(child: PipelineProcess) -> None:
    report = report_of(child, cpu_s=None, cpu_s_per_1000=None, rss_peak_mb=None)
    assert comparison.table(report).count("unavailable") == 3
    assert comparison.notes(report) == [
        "The detector ran on 60 % of the frames; the CPU time was not reported."
    ]


def test_the_notes_name_a_missing_saving_and_lost_frames(child: PipelineProcess) -> None:
    assert comparison.notes(report_of(child)) == [
        "The detector ran on 60 % of the frames, for 50 % of the CPU time."
    ]
    reasons = {"failed.too_large": 1, "failed.deactivated": 1}
    ledger = {"superseded": 2}
    report = report_of(child, cpu_s_per_1000=796.0, ledger=ledger, reasons=reasons, fallback_reason="no GPU")
    report["agreement"] = {**report["agreement"], "events": 0}
    result, lost, failed, fallback, events = comparison.notes(report)
    assert result.startswith(
        "No saving on this clip: the detector ran on 60 % of the frames, for 100 % of the"
    )
    assert result.endswith("docs/gate.md lists when the gate does not help.")
    assert lost.startswith("balanced: 2 of 5 frames were superseded")
    assert failed == "balanced: frames that could not be used: failed.too_large 1."
    assert fallback == "balanced: no GPU" and "no recall" in events


def test_a_slow_machine_is_not_taken_for_a_clip_without_a_saving(child: PipelineProcess) -> None:
    report = report_of(child, cpu_s_per_1000=796.0)
    report["runs"]["every_frame"] |= {"ledger": {"superseded": 3}, "detector_runs": 2}
    assert "on every frame inferred only 40 % of them" in comparison.notes(report)[0]


def drawn(clip: Path, folder: Path, frames: int = 5) -> tuple[list[Path], list[np.ndarray]]:
    record = record_of_a_clip()
    files = annotate(str(clip), record, TIMES_S, folder, lambda done, total: done < frames)
    capture = cv2.VideoCapture(str(files[0]))
    images = []
    while (image := capture.read()[1]) is not None:
        images.append(image)
    return files, images


def box_side(image: np.ndarray) -> np.ndarray:
    """(n, 3) pixels of the left side of the first box, enlarged by 4."""
    return image[100:230, 39:42].reshape(-1, 3).astype(int)


def test_the_video_has_boxes_on_every_frame_dashed_where_none_was_inferred(
    clip: Path, tmp_path: Path
) -> None:
    files, images = drawn(clip, tmp_path)
    assert [file.name for file in files] == ["annotated.mp4", "annotated.png"] and len(images) == 5
    assert images[0].shape == (480 + STRIP_PX, 640, 3)
    solid, dashed = np.ptp(box_side(images[2]), axis=0).max(), np.ptp(box_side(images[1]), axis=0).max()
    assert dashed > solid + 60
    assert all(np.ptp(image[:480].astype(int)) > 100 for image in images if image is not images[3])
    still = cv2.imread(str(files[1]))
    assert np.abs(still[:480].astype(int) - images[4][:480]).mean() < 12, "the skipped frame with most boxes"


def test_the_strip_shows_when_the_detector_ran(clip: Path, tmp_path: Path) -> None:
    _, images = drawn(clip, tmp_path)
    strip = images[4][480:]
    bars = [strip[33:48, 8 + 4 * index : 10 + 4 * index].max() > 100 for index in range(5)]
    assert bars == [True, False, True, True, False]
    assert strip[52:55, 12:14].mean() > 60, "a low bar for a skipped frame"


def test_the_drawing_can_be_stopped(clip: Path, tmp_path: Path) -> None:
    assert len(drawn(clip, tmp_path, 2)[1]) == 2


def test_a_video_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "none" / "a.mp4", 10.0)
    with pytest.raises(VideoError, match="OpenCV cannot write a video"):
        video.add(np.zeros((64, 64, 3), np.uint8))
    video = VideoFile(tmp_path / "a.mp4", 10.0)
    video.add(np.zeros((64, 64, 3), np.uint8))
    (tmp_path / "a.mp4").unlink()
    with pytest.raises(VideoError, match="check the free space"):
        video.close()


def test_a_camera_is_recorded_for_both_runs(clip: Path, tmp_path: Path) -> None:
    path = record_camera(str(clip), 60.0, tmp_path / "recording.avi", lambda elapsed_s: True)
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 5 and capture.read()[1].shape == (120, 160, 3)
    with pytest.raises(SourceError, match="expected images from the source for 60 s, got 0"):
        record_camera(str(clip), 60.0, tmp_path / "none.avi", lambda elapsed_s: False)


def test_little_free_space_is_an_error_before_the_run(
    clip: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    usage = command.shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(command.shutil, "disk_usage", lambda folder: usage)
    assert command.main(["--source", str(clip), "--out", str(tmp_path / "out")]) == 1
    assert "expected 100 MB of free space for the results, got 3 MB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "best"], "'best' (choose from"),
        (["--params", "gate.max_delay_ms=3"], "NODE:NAME:=VALUE with a node out of source, gate, cascade"),
        (["--params", "gate:speed:=3"], "gate has no parameter 'speed'"),
        (["--params", "none.yaml"], "expected a parameter file, got none at none.yaml"),
    ],
)
def test_wrong_parameters_are_refused(arguments: list[str], message: str, capsys) -> None:
    with pytest.raises(SystemExit) as raised:
        command.main(arguments)
    assert raised.value.code == 2 and message in capsys.readouterr().err


@pytest.mark.parametrize(("option", "message"), [("backend", "a backend out of"), ("model", "models import")])
def test_a_wrong_detector_is_refused_before_a_run(
    option: str, message: str, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--source", str(clip), "--out", str(tmp_path / "out"), f"--{option}", "nosuch"]
    assert command.main(given) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_wrong_parameters_are_named_as_they_were_logged(tmp_path: Path) -> None:
    (tmp_path / "log").write_text(
        "[INFO] [1.5] [gate]: preset recall (given): max_delay_ms 1, min_fidelity 1, max_blind_ms 1000\n"
        "[ERROR] [1.5] [gate]: there is no parameter 'max_dealy_ms': did you mean 'max_delay_ms'?\n"
        "[INFO] [1.6] [detector]: inactive, was unconfigured\n"
        "[WARN] [1.7] [source]: another matter\n"
    )
    assert command.parameter_notes(tmp_path / "log") == [
        "ERROR gate: there is no parameter 'max_dealy_ms': did you mean 'max_delay_ms'?"
    ]


def test_given_values_win_over_the_preset_in_the_second_run(tmp_path: Path) -> None:
    options = command._parser().parse_args(["--params", "gate:max_delay_ms:=200", "--preset", "economy"])
    first, second = (command._arguments(name, options, "a.mp4") for name in (EVERY_FRAME, SCHEDULED))
    assert "economy" in second and "economy" not in first and "gate:enabled:=false" in first
    assert "gate:max_delay_ms:=200" in first and "gate:max_delay_ms:=200" in second
    (tmp_path / "log").write_text(
        "[gate] preset economy (given): max_delay_ms 200 (given, preset 150), min_fidelity 0.95\n"
    )
    assert command.parameter_notes(tmp_path / "log") == [
        "given: max_delay_ms 200 instead of the preset's 150 ms",
    ]
