"""The demo's record, images and files, without ROS."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_vision.cli.demo import command
from edge_vision.cli.demo.live import status_line
from edge_vision.cli.demo.summary import report_text, summarise, write_detections
from edge_vision.cli.demo.video import LiveRecorder, annotate_file, contact_frames, write_sheet
from edge_vision.core.child_process import child_environment
from edge_vision.core.detections import Detections
from edge_vision.core.printable import printable_output
from edge_vision.diagnostics.process_usage import ProcessUsage
from edge_vision.evaluate.live import pipeline_process
from edge_vision.evaluate.live.pipeline_process import PipelineProcess
from edge_vision.evaluate.live.run_record import RunRecord
from edge_vision.offline.progress import ProgressLine
from edge_vision.offline.provenance import hash_of, machine, versions, write_json
from edge_vision.source.capture import Capture
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


def record_of_a_clip(clock: Clock | None = None) -> RunRecord:
    """Five frames at 10 Hz, of which 0, 2 and 3 were inferred."""
    clock = clock or Clock()
    record = RunRecord(clock)
    record.on_labels(LABELS)
    for index in range(5):
        record.on_source(1_000 + index, index)
    for index, found in ((0, objects_of(0)), (2, objects_of(0, 2)), (3, objects_of())):
        clock.now_s += 0.1
        record.on_detections(1_000 + index, "camera", found, 10.0 + index)
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
    assert record.fps_hz() == pytest.approx(3 / 0.5)
    clock.now_s += 60
    assert record.fps_hz() == 0.0


def test_an_empty_record_has_no_figures() -> None:
    record = RunRecord()
    assert record.age_ms() is None and record.fps_hz() == 0.0 and not record.finished
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
    assert line == "frames 5  inferred 3  gated 2  6.0 fps  age p95 13 ms  CPU 12 %  RSS 200 MB"
    unknown = status_line(record_of_a_clip(), ProcessUsage(None, None, None, None))
    assert "CPU unavailable" in unknown and "RSS unavailable" in unknown


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


def test_the_results_of_a_stream_show_no_secret(tmp_path: Path) -> None:
    uri = "rtsp://user:pa@ss@camera/1?token=tell"
    with contextlib.ExitStack() as stack:
        child = PipelineProcess(["--help", "--source", uri], tmp_path / "log")
        stack.callback(child.stop)
        summary = summarise(record_of_a_clip(), child, uri, True)
    labels = {**summary, "labels": {"a\nResults: \x1b": 1}, "first_detection_s": 1.0}
    assert "a\\nResults: \\u001b" in report_text(labels, [])
    assert summary["source"] == "rtsp://***@camera/1?token=***" == summary["command"][-1]
    assert "pa@ss" not in json.dumps(summary) and "tell" not in json.dumps(summary)


def test_summary_and_report_text(child: PipelineProcess, clip: Path) -> None:
    child.measure()
    summary = json.loads(json.dumps(summarise(record_of_a_clip(), child, str(clip), True)))
    ledger = summary["ledger"]
    assert ledger["received"] == sum(ledger[k] for k in ledger if k != "received")
    assert summary["backend"] == {
        "requested": {"backend": "auto"},
        "actual": {"backend": "onnxruntime 1.0", "device": "cpu"},
    }
    assert summary["video_sha256"] == hash_of(clip) and len(summary["video_sha256"]) == 64
    assert summary["labels"] == {"person": 2, "car": 1}
    assert summary["rss_peak_mb"] > 0
    assert summarise(record_of_a_clip(), child, clip.as_uri(), True)["video_sha256"] == hash_of(clip)
    text = report_text({**summary, "first_detection_s": 1.0}, [clip])
    assert "5 frames received: 3 inferred, 2 gated, 0 in flight" in text and "make demo SOURCE=" in text


def test_the_annotated_files_show_the_detections(clip: Path, tmp_path: Path) -> None:
    done: list[int] = []
    files = annotate_file(
        str(clip),
        record_of_a_clip().by_frame(),
        LABELS,
        tmp_path,
        True,
        lambda n, total: done.append(n) or True,
    )
    assert [file.name for file in files] == ["annotated.mp4", "annotated.png"]
    capture = cv2.VideoCapture(str(files[0]))
    images = [capture.read()[1] for _ in range(4)]
    assert capture.read()[0] is False and done == [1, 2, 3, 4]
    # Only the box of frame 2 differs from the uniform image.
    assert np.ptp(images[2][20:60, 10:65].astype(int)) > 100
    sheet = cv2.imread(str(files[1]))
    assert sheet.shape[1] == 3 * 512


def test_the_drawing_can_be_stopped(clip: Path, tmp_path: Path) -> None:
    files = annotate_file(
        str(clip), record_of_a_clip().by_frame(), LABELS, tmp_path, True, lambda n, total: n < 2
    )
    with_all = cv2.VideoCapture(str(files[0]))
    assert with_all.get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_no_video_writes_only_the_contact_sheet(clip: Path, tmp_path: Path) -> None:
    files = annotate_file(
        str(clip), record_of_a_clip().by_frame(), LABELS, tmp_path, False, lambda n, total: True
    )
    assert [file.name for file in files] == ["annotated.png"]


@pytest.mark.parametrize("count", [0, 1, 9, 100])
def test_the_contact_sheet_has_at_most_nine_frames_spread_over_the_run(count: int) -> None:
    found = {index: objects_of(*([0] * (index % 3))) for index in range(count)}
    frames = sorted(contact_frames(found))
    assert len(frames) == min(9, count)
    if count == 100:
        assert frames[0] < 12 and frames[-1] >= 89 and all(len(found[index]) == 2 for index in frames)


def test_no_contact_sheet_without_cells(tmp_path: Path) -> None:
    assert write_sheet([], tmp_path / "sheet.png") == []


def test_a_camera_is_recorded_at_its_own_rate(tmp_path: Path) -> None:
    recorder = LiveRecorder(tmp_path, True)
    for index in range(40):
        recorder.add(1 + index * 50_000_000, np.full((120, 160, 3), index, np.uint8))
    video, sheet = recorder.close()
    capture = cv2.VideoCapture(str(video))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 40 and capture.get(cv2.CAP_PROP_FPS) == pytest.approx(20)
    assert cv2.imread(str(sheet)).shape[1] == 3 * 512


def test_a_camera_without_images_leaves_no_files(tmp_path: Path) -> None:
    assert LiveRecorder(tmp_path, True).close() == []


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


def test_the_capture_of_the_clip_is_what_the_demo_draws_on(clip: Path) -> None:
    capture = Capture(str(clip))
    try:
        assert capture.fps_hz == 10.0 and capture.read() is not None
    finally:
        capture.close()
