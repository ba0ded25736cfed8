"""Bags as a source: the same images, stamps and intervals in every format, and damaged bags."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from bag_cases import HEIGHT_PX, PERIOD_NS, START_NS, WIDTH_PX, Recorded, picture, recording, write_bag

from edge_vision.core.missing_package import install_command
from edge_vision.core.stamp_check import MAX_STAMP_NS
from edge_vision.errors import ImageError
from edge_vision.evaluate.errors import EvaluateError
from edge_vision.evaluate.fit.run import clip_name
from edge_vision.evaluate.reference.clips import clip_condition, read_clip
from edge_vision.offline.media_files import frame_times_s, source_name, source_sha256
from edge_vision.optimize.data.clips import read_clip as read_calibration
from edge_vision.optimize.data.clips import split_clips
from edge_vision.source.bag import BagCapture
from edge_vision.source.opening import open_source
from edge_vision.source.uri import SourceError, SourceKind, source_kind

FORMATS = ("drive.mcap", "drive.db3", "drive", "drive.bag")


def played(uri, **options):
    """All frames of a bag, and its damage."""
    with closing(BagCapture(str(uri), **options)) as capture:
        frames = [capture.frame() for _ in iter(capture.grab, False)]
        return frames, capture.damage


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("encoding", ["bgr8", "png"])
def test_images_stamps_and_intervals_are_those_recorded(tmp_path, name, encoding):
    images = recording(encoding=encoding)
    images[3:] = [one._replace(time_ns=one.time_ns + 2 * 10**9) for one in images[3:]]
    bag = write_bag(tmp_path / name, images)
    frames, damage = played(bag, skip_unreadable=False)
    assert [frame.stamp_ns for frame in frames] == [one.stamp_ns for one in images]
    assert {frame.frame_id for frame in frames} == {"optical"} and damage == ""
    assert all(np.array_equal(frame.bgr(), one.image) for frame, one in zip(frames, images, strict=True))
    assert frame_times_s(str(bag)) == pytest.approx([0, 0.1, 0.2, 2.3, 2.4])
    assert [image.shape for image in read_clip(bag)] == 5 * [(HEIGHT_PX, WIDTH_PX, 3)]


def test_compressed_images_are_decoded_when_they_are_needed(tmp_path):
    frames, _ = played(write_bag(tmp_path / "a.mcap", recording(1, encoding="jpeg")), skip_unreadable=False)
    frame = frames[0].with_header(5, "front", 9)
    assert (type(frame).__name__, frame.width_px, frame.stamp_ns, frame.seq) == ("CompressedFrame", 64, 5, 9)
    assert np.array_equal(frame.bgr(), frames[0].bgr())


@pytest.mark.parametrize("name", ["split", "split.bag"])
def test_a_split_recording_is_played_as_one(tmp_path, name):
    images, folder = recording(6), tmp_path / "split"
    folder.mkdir()
    suffix = ".bag" if name.endswith(".bag") else ".mcap"
    for number, part in enumerate((images[3:], images[:3])):  # The order of the names is not that of time.
        write_bag(folder / f"part_{number}{suffix}", part)
    for rest in folder.glob("*/metadata.yaml"):
        rest.unlink()
    assert [frame.stamp_ns for frame in played(folder)[0]] == [one.stamp_ns for one in images]


def test_the_topic_is_chosen_by_type_or_named(tmp_path):
    front, rear = recording(2, topic="/front/image_raw"), recording(3, topic="/rear/image_raw")
    bag = write_bag(tmp_path / "two.mcap", sorted([*front, *rear], key=lambda one: one.time_ns))
    with pytest.raises(SourceError, match=r"/front/image_raw \(2 images\), /rear/image_raw \(3.*mcap#/front"):
        BagCapture(str(bag))
    assert len(played(f"{bag}#/rear/image_raw")[0]) == 3 and len(played(f"{bag}#front/image_raw")[0]) == 2
    assert len(played(f"{bag.as_uri()}#/rear/image_raw")[0]) == 3
    with pytest.raises(SourceError, match=r"no images on that topic: choose one of /front"):
        BagCapture(f"{bag}#/left/image_raw")


def test_kinds_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    bag = str(tmp_path / "a.mcap")
    assert source_kind("a.mcap") == SourceKind("bag", bag)
    assert source_kind("a.mcap#/cam/image_raw") == SourceKind("bag", bag, "/cam/image_raw")
    assert source_kind("file:///b/a%20b.bag#/cam") == SourceKind("bag", "/b/a b.bag", "/cam")
    assert source_kind("a#b.mp4").name == "file"
    assert source_name("a.mcap#/cam/image_raw") == "a_cam_image_raw" and source_name("b/a.mp4") == "a"
    write_bag(Path("drive.db3"), recording(1))
    assert source_sha256("drive.db3") != source_sha256("drive.db3#/cam/image_raw")


def test_evaluate_and_optimize_take_bags(tmp_path):
    bag = write_bag(tmp_path / "drive", recording(12))
    condition = clip_condition(bag)
    assert (condition.name, condition.n_frames) == ("drive", 12) and condition.fps_hz == pytest.approx(10)
    assert len(list(condition.make().render())) == 12 and condition.make().fingerprint()
    topic = Path(f"{bag}#/cam/image_raw")
    assert clip_condition(topic).name == "drive_cam_image_raw"
    assert split_clips(None, [str(bag), str(topic)]) == (str(bag), (str(topic),))
    assert np.array_equal(read_calibration(topic, 12).images[11], picture(11))
    assert (clip_name(str(bag)), clip_name(str(topic))) == ("drive", "drive_cam_image_raw")
    with pytest.raises(SourceError, match="no images on that topic"):
        read_calibration(Path(f"{bag}#/other"), 12)


# Damaged and hostile bags.
@pytest.mark.parametrize("name", FORMATS)
def test_a_cut_bag_is_reported(tmp_path, name):
    bag = write_bag(tmp_path / name, recording(300))
    file = next(bag.glob("*.db3")) if bag.is_dir() else bag
    data = file.read_bytes()
    for share in (0.0, 0.001, 0.5, 0.99):
        file.write_bytes(data[: int(share * len(data))])
        try:
            frames, damage = played(bag)
        except SourceError as error:
            assert "cannot be read" in str(error) and str(bag) in str(error)
        else:
            assert len(frames) < 300 and f"ended after {len(frames)} of 300 images" in damage


@pytest.mark.parametrize("name", FORMATS)
def test_no_byte_of_a_bag_crashes_the_reader(tmp_path, name):
    bag = write_bag(tmp_path / name, recording(2))
    file = next(bag.glob("*.db3")) if bag.is_dir() else bag
    data, rng = file.read_bytes(), np.random.default_rng(1)
    for _ in range(60):
        mutant = bytearray(data)
        for at in rng.integers(0, len(data) if rng.random() < 0.5 else 400, rng.integers(1, 9)):
            mutant[at] = rng.integers(0, 256)
        file.write_bytes(mutant)
        try:
            played(bag)
        except SourceError as error:
            assert str(bag) in str(error)


@pytest.mark.parametrize(
    "change,reason",
    [
        ({"encoding": "bayer_xyz"}, "unsupported_encoding"),
        ({"step": 1}, "bad_step"),
        ({"width": 40_000, "height": 40_000}, "too_large"),
        ({"width": 0}, "zero_size"),
        ({"data": np.zeros(10, np.uint8)}, "truncated"),
    ],
)
def test_unreadable_images_are_counted_and_skipped(tmp_path, capsys, change, reason):
    def spoil(message):
        if message.header.stamp.nanosec // 10**8 % 2:
            for name, value in change.items():
                object.__setattr__(message, name, value)
        return message

    bag = write_bag(tmp_path / "a.mcap", recording(6), spoil)
    frames, damage = played(bag)
    assert len(frames) == 3 and f"unreadable images ({reason} 3, of 6)" in damage
    assert clip_condition(bag).n_frames == 3 and reason in capsys.readouterr().err
    frames, _ = played(bag, skip_unreadable=False)
    failed = [frame for frame in frames if type(frame).__name__ == "UnreadableFrame"]
    assert len(frames) == 6 and len(failed) == 3 and failed[0].frame_id == "optical"
    with pytest.raises(ImageError) as caught:
        _ = failed[0].with_header(1, "a", 2).width_px
    assert caught.value.reason == reason
    with pytest.raises(SourceError, match=f"{reason} 1, of 1"):
        played(write_bag(tmp_path / "none.mcap", recording(6)[2:3], spoil))


def test_a_damaged_compressed_image_is_skipped(tmp_path):
    def cut_second(message):
        if message.header.stamp.nanosec < 10**8:
            message.data[len(message.data) // 2 :] = 0
        return message

    good, bad = recording(1, encoding="png"), recording(2, encoding="png", topic="/bad")[1:]
    bag = write_bag(tmp_path / "a.bag", [*good, *bad], cut_second)
    with pytest.raises(SourceError, match="corrupt_image 1, of 1"):
        played(f"{bag}#/bad")
    assert len(played(f"{bag}#/cam/image_raw")[0]) == 1


def test_a_bag_without_images(tmp_path):
    bag = write_bag(tmp_path / "a.mcap", recording(2), lambda message: message.header)
    with pytest.raises(SourceError, match=r"no image topic, only /cam/image_raw \(std_msgs/msg/Header\)"):
        open_source(str(bag))
    with pytest.raises(SourceError, match="no topic at all"):
        open_source(str(write_bag(tmp_path / "empty.db3", [])))
    with pytest.raises(EvaluateError, match="does not exist"):
        clip_condition(tmp_path / "missing.bag")


@pytest.mark.parametrize("name", ["a.mcap", "a.db3", "a.bag", "a/part.mcap"])
def test_a_pipe_is_no_bag(tmp_path, name):
    """Opening it would wait for a writer."""
    bag = tmp_path / name
    bag.parent.mkdir(exist_ok=True)
    os.mkfifo(bag)
    with ThreadPoolExecutor() as pool:
        # Opens with the first reader, which reads nothing.
        writer = pool.submit(lambda: os.close(os.open(bag, os.O_WRONLY)))
        with pytest.raises(SourceError, match=f"{bag}' is a pipe or device: copy"):
            BagCapture(str(tmp_path / name.split("/")[0]))
        reader = os.open(bag, os.O_RDONLY | os.O_NONBLOCK)
        writer.result()
        os.close(reader)


def test_large_metadata_is_refused(tmp_path):
    bag = write_bag(tmp_path / "drive", recording(1))
    assert len(played(bag)[0]) == 1
    with (bag / "metadata.yaml").open("a") as file:
        file.write("\n#" * 2**18 + "\n")
    with pytest.raises(SourceError, match=r"at most 524288 bytes, got a larger .*metadata\.yaml"):
        BagCapture(str(bag))


def test_an_unreadable_image_has_a_stamp_within_the_range_of_stamps(tmp_path):
    def spoil(message):
        for name, value in (("sec", 5), ("nanosec", 2 * 10**9)):
            object.__setattr__(message.header.stamp, name, value)
        return message

    images = [Recorded(picture(0), START_NS), Recorded(picture(1), 2**63 - 1)]
    frames, damage = played(write_bag(tmp_path / "a.db3", images, spoil), skip_unreadable=False)
    assert [frame.stamp_ns for frame in frames] == [START_NS, MAX_STAMP_NS] and "bad_stamp 2" in damage


def test_times_increase_across_a_jump_of_the_clock(tmp_path):
    hour_ns = 3600 * 10**9
    images = [Recorded(picture(n), START_NS + n * PERIOD_NS + (n > 1) * hour_ns) for n in range(4)]
    times_s = frame_times_s(str(write_bag(tmp_path / "a.mcap", images)))
    assert times_s == sorted(set(times_s)) and times_s[-1] < 0.31


def test_without_the_package_the_error_names_it(tmp_path):
    (tmp_path / "a.mcap").touch()
    code = (
        "import sys; sys.modules['rosbags'] = None\n"
        "from edge_vision.source.opening import open_source\n"
        f"open_source({str(tmp_path / 'a.mcap')!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert f"is a bag: package rosbags is not installed: {install_command('rosbags')}" in done.stderr


def test_the_command_names_the_pip_of_a_virtual_environment(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / ".venv"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv/bin/python"))
    assert install_command("rosbags") == ".venv/bin/python -m pip install rosbags"
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    assert install_command("rosbags") == "pip install rosbags"
