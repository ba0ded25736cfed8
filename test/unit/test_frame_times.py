"""Frame times and rotation from the container, in every reader of videos."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from video_cases import HEIGHT_PX, WIDTH_PX, white_corner, write_matroska, write_rotated

from edge_vision.cli.demo.video import STRIP_PX, annotate
from edge_vision.evaluate.live.live_record import LiveRecord
from edge_vision.evaluate.reference.clips import clip_condition, read_clip
from edge_vision.importer.run import read_image
from edge_vision.offline.media_files import frame_times_s
from edge_vision.optimize.data import clips as optimize_clips
from edge_vision.source.capture import Capture
from edge_vision.source.frame_times import FrameTimes

UNEVEN_MS = [0, 90, 160, 700, 733, 2000]


def times_of(positions_ms: list[float], fps_hz: float = 10.0) -> list[float]:
    times, found = FrameTimes(fps_hz), []
    for position_ms in positions_ms:
        times.advance(position_ms)
        found.append(times.time_s)
    return found


POSITIONS = {
    "uneven": ([0, 33, 67, 1000], [0, 0.033, 0.067, 1.0]),
    "offset": ([5000, 5033, 5067], [0, 0.033, 0.067]),
    "constant": ([0, 0, 0, 0], [0, 0.1, 0.2, 0.3]),
    "invalid": ([float("nan"), float("inf"), -float("inf")], [0, 0.1, 0.2]),
    "missing": ([100, 200, 0, 400], [0, 0.1, 0.2, 0.3]),
    "repeated": ([0, 40, 40, 120], [0, 0.04, 0.08, 0.12]),
    "reordered": ([0, 120, 40, 80, 160], [0, 0.12, 0.22, 0.32, 0.42]),
    "restart": ([0, 2000, 4000, 0, 2000], [0, 2, 4, 4.1, 4.2]),
    "jump back": ([9000, 9100, 100, 200], [0, 0.1, 0.2, 0.3]),
    "jump ahead": ([0, 100, 90_000_000, 90_000_050], [0, 0.1, 0.2, 0.25]),
}


@pytest.mark.parametrize("case", POSITIONS)
def test_times_follow_valid_positions_and_always_increase(case):
    positions_ms, expected_s = POSITIONS[case]
    assert times_of(positions_ms) == pytest.approx(expected_s)


@pytest.mark.parametrize("start_ms", [0, 1400, 3_600_000])
def test_a_file_keeps_its_own_frame_times(tmp_path, start_ms):
    path = write_matroska(tmp_path / "uneven.mkv", [start_ms + time_ms for time_ms in UNEVEN_MS])
    assert frame_times_s(str(path)) == pytest.approx([time_ms / 1e3 for time_ms in UNEVEN_MS])
    assert frame_times_s(str(path), 2) == pytest.approx([0, 0.09])


def test_joined_recordings_continue_in_time(tmp_path):
    """The second MPEG-TS recording starts at 0 again."""
    path = tmp_path / "one.ts"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (WIDTH_PX, HEIGHT_PX))
    for level in range(5):
        writer.write(np.full((HEIGHT_PX, WIDTH_PX, 3), 40 * level, np.uint8))
    writer.release()
    path.write_bytes(path.read_bytes() * 2)
    assert frame_times_s(str(path)) == pytest.approx([n / 10 for n in range(10)])


def test_the_annotated_video_shows_each_frame_at_its_time(tmp_path):
    source = write_matroska(tmp_path / "uneven.mkv", UNEVEN_MS, 40)
    times_s = frame_times_s(str(source))
    (video, _) = annotate(str(source), LiveRecord(), times_s, tmp_path, lambda done, total: True)
    capture, first_s = cv2.VideoCapture(str(video)), {}
    while capture.grab():
        index = round((float(capture.retrieve()[1][:-STRIP_PX].mean()) - 20) / 40)
        first_s.setdefault(index, capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3)
    assert first_s == {index: pytest.approx(ms / 1e3, abs=0.035) for index, ms in enumerate(UNEVEN_MS)}


def test_an_evaluated_clip_keeps_its_frame_times(tmp_path):
    condition = clip_condition(write_matroska(tmp_path / "uneven.mkv", UNEVEN_MS))
    stamps_ns = np.array([frame.stamp_ns for frame in condition.frames()])
    assert (condition.n_frames, condition.fps_hz) == (6, pytest.approx(2.5))
    assert stamps_ns - stamps_ns[0] == pytest.approx(np.array(UNEVEN_MS) * 1e6, abs=2)


def test_optimizer_pictures_cover_a_clip_with_a_wrong_frame_count(tmp_path):
    """From a burst at the start, OpenCV estimates a rate, and from it 20 times as many frames."""
    times_ms = [*range(40), *range(1000, 21_000, 1000)]
    path = write_matroska(tmp_path / "burst.mkv", times_ms)
    assert Capture(str(path)).frames != len(times_ms)
    levels = [round(float(picture.mean())) for picture in optimize_clips.video_images(path, 10)]
    assert len(levels) == 10 and levels[0] < 30 and levels[-1] > 130


CORNERS = {0: "top left", 90: "top right", 180: "bottom right", 270: "bottom left"}


@pytest.mark.parametrize("degrees", CORNERS)
def test_every_reader_applies_the_rotation_of_the_container(tmp_path: Path, degrees: int) -> None:
    path = write_rotated(tmp_path / "phone.mp4", degrees)
    (video, _) = annotate(str(path), LiveRecord(), [0.0], tmp_path, lambda done, total: True)
    enlarged = cv2.VideoCapture(str(video)).read()[1][:-STRIP_PX]
    size = (WIDTH_PX, HEIGHT_PX) if degrees in (0, 180) else (HEIGHT_PX, WIDTH_PX)
    images = {
        "source": Capture(str(path)).read(),
        "demo": cv2.resize(enlarged, size, interpolation=cv2.INTER_AREA),
        "evaluate": next(read_clip(path)),
        "importer": read_image(path),
        "optimize": optimize_clips.video_images(path, 3)[0],
    }
    upright = (WIDTH_PX, HEIGHT_PX, 3) if degrees in (90, 270) else (HEIGHT_PX, WIDTH_PX, 3)
    for reader, image in images.items():
        assert (reader, image.shape, white_corner(image)) == (reader, upright, CORNERS[degrees])
