"""Recordings on disk: readable by others, complete up to the last flush after any end, and kept in bounds."""

from __future__ import annotations

import errno
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import record_cases
from record_cases import TOPIC, TOPICS, numbered, numbers_in, read_independently, read_with_rosbags

from edge_vision.record import folder as folder_module
from edge_vision.record.folder import DAY_S, RecordingFolder, Retention
from edge_vision.record.recording_file import PART, RecordingFile, recover

REPO = Path(__file__).resolve().parents[2]
NOW_S = 1_800_000_000.0
ALL = Retention(10**12, 0.0)


def recording(path: Path, count: int = 30, flush_every: int = 10) -> RecordingFile:
    """A file in work with numbered messages, one per ms."""
    file = RecordingFile(path, TOPICS, {"trigger": "test"})
    for number in range(count):
        file.write(TOPIC, number * 10**6, numbered(number, "x" * 50))
        if (number + 1) % flush_every == 0:
            file.flush()
    return file


@contextmanager
def file_limit(size: int):
    """Writes beyond this size fail in the middle, as those to a full disk do."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_complete_file_has_its_name_at_the_end_only(tmp_path):
    path = tmp_path / "a.mcap"
    file = recording(path)
    assert [one.name for one in tmp_path.iterdir()] == ["a.mcap.part"]
    assert file.close() == path and [one.name for one in tmp_path.iterdir()] == ["a.mcap"]
    assert numbers_in(path) == list(range(30))


def test_it_is_what_rosbag2_writes(tmp_path):
    from mcap.reader import make_reader

    path = recording(tmp_path / "a.mcap").close()
    with path.open("rb") as file:
        reader = make_reader(file)
        summary, header = reader.get_summary(), reader.get_header()
        assert header.profile == "ros2" and header.library.startswith("edge_vision ")
        assert summary is not None and summary.statistics is not None
        assert summary.statistics.message_count == 30
        (channel,), (schema,) = summary.channels.values(), summary.schemas.values()
        assert (channel.topic, channel.message_encoding) == (TOPIC, "cdr")
        assert (schema.name, schema.encoding) == ("std_msgs/msg/String", "ros2msg")
        assert [one.name for one in summary.metadata_indexes] == ["edge_vision"]
    from rosbags.highlevel import AnyReader
    from rosbags.interfaces import QosDurability, QosReliability

    with AnyReader([path]) as bag:
        (qos,) = bag.connections[0].ext.offered_qos_profiles
        assert qos.depth == 5 and qos.reliability == QosReliability.RELIABLE
        assert qos.durability == QosDurability.VOLATILE


@pytest.mark.parametrize("cut", ["flushed", "middle", "zeros", "index", "damaged"])
def test_a_file_that_was_cut_short_is_complete_up_to_its_last_flush(tmp_path, cut):
    part, path = tmp_path / "a.mcap.part", tmp_path / "a.mcap"
    file = recording(path, 30)
    expected = 30
    if cut == "index":  # Killed while it wrote the index.
        file.close()
        path.rename(part)
        os.truncate(part, part.stat().st_size - 40)
    else:
        flushed = part.stat().st_size
        if cut == "middle":
            os.truncate(part, flushed - 250)
            expected = 20
        elif cut == "zeros":  # Not all of it reached the disk before the power failed.
            os.truncate(part, flushed + 5000)
        elif cut == "damaged":
            with part.open("r+b") as raw:
                raw.seek(flushed - 200)
                raw.write(b"?" * 20)
            expected = 20
        os.close(file._descriptor)
    assert recover(part) == path and not part.exists()
    assert numbers_in(path) == list(range(expected))


@pytest.mark.parametrize("size", [0, 5, 40])
def test_a_file_without_a_message_is_removed(tmp_path, size):
    path = tmp_path / "a.mcap"
    recording(path, 5, flush_every=100)
    part = tmp_path / "b.mcap.part"
    part.write_bytes((tmp_path / "a.mcap.part").read_bytes()[:size])
    assert recover(part) is None and not part.exists()


def test_a_file_that_another_process_writes_is_left_alone(tmp_path):
    file = recording(tmp_path / "a.mcap")
    assert recover(tmp_path / "a.mcap.part") is None
    assert numbers_in(file.close()) == list(range(30))


def test_a_name_that_is_taken_is_not_overwritten(tmp_path):
    file = recording(tmp_path / "a.mcap")
    os.close(file._descriptor)
    (tmp_path / "a.mcap").write_text("other")
    assert recover(tmp_path / "a.mcap.part") == tmp_path / "a-recovered.mcap"
    assert (tmp_path / "a.mcap").read_text() == "other"
    again = recording(tmp_path / "a.mcap")
    os.close(again._descriptor)
    assert recover(tmp_path / "a.mcap.part") == tmp_path / "a-recovered-2.mcap"
    assert recording(tmp_path / "a.mcap").close() == tmp_path / "a-2.mcap"
    assert (tmp_path / "a.mcap").read_text() == "other"
    recording(tmp_path / "b.mcap")
    with pytest.raises(FileExistsError):
        recording(tmp_path / "b.mcap")


@pytest.mark.parametrize("limit", [400, 3000, 5000, 8000])
def test_a_disk_that_is_full_leaves_what_was_flushed(tmp_path, limit):
    """Wherever the write fails, also in the index."""
    flushed = 0
    file = RecordingFile(tmp_path / "a.mcap", TOPICS)
    draw = random.Random(3)
    with file_limit(limit), pytest.raises(OSError) as caught:
        for number in range(100):
            file.write(TOPIC, number, numbered(number, str(draw.random()) * 10))
            if number % 7 == 6:
                file.flush()
                flushed = number + 1
        file.close()
    assert caught.value.errno == errno.EFBIG
    path = file.cut()
    assert (path is None) == (flushed == 0)
    left = list(tmp_path.iterdir())
    assert left == ([path] if path else [])
    if path:
        assert numbers_in(path) == list(range(flushed))


def test_five_kills_at_random_instants_leave_readable_files(tmp_path):
    """`make bench-recorder` does it fifty times."""
    draw, environment = random.Random(5), {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, record_cases.__file__, str(tmp_path)]
    for seed in range(5):
        child = subprocess.Popen(
            [*command, str(seed)], cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout and child.stdout.readline(), "it records"
        time.sleep(draw.random() * 0.5)
        child.send_signal(signal.SIGKILL)
        flushed = dict(line.split() for line in child.stdout.read().splitlines() if line.count(" ") == 1)
        child.wait()
        RecordingFolder(tmp_path, "/front").recover()
        assert not list(tmp_path.glob(f"*{PART}"))
        for name, count in flushed.items():
            numbers = numbers_in(tmp_path / name)
            assert len(numbers) >= int(count), "what had been flushed"
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "no message is missing"
        for path in tmp_path.glob("*.mcap"):
            assert read_independently(path)
            path.unlink()


def test_a_chunk_can_be_read_while_the_file_is_written(tmp_path):
    from mcap.exceptions import EndOfFile
    from mcap.stream_reader import StreamReader

    file = recording(tmp_path / "a.mcap", 30)
    with (tmp_path / "a.mcap.part").open("rb") as raw:
        found = 0
        with pytest.raises(EndOfFile):
            for record in StreamReader(raw).records:
                found += type(record).__name__ == "Message"
    assert found == 30
    file.close()


# The folder.
def stored(folder: RecordingFolder, age_days: float, count: int = 30) -> Path:
    at_s = NOW_S - age_days * DAY_S
    path = recording(folder.new_path("test", at_s), count).close()
    os.utime(path, (at_s, at_s))
    return path


def test_names_tell_the_camera_the_time_and_the_trigger(tmp_path):
    path = RecordingFolder(tmp_path, "/robot/front").new_path("class-person", 1_700_000_000.25)
    assert path == tmp_path / "edge_vision_robot-front_20231114T221320.250Z_class-person.mcap"


def test_the_oldest_go_first_and_the_newest_stays(tmp_path):
    folder = RecordingFolder(tmp_path, "/front")
    paths = [stored(folder, age) for age in (4, 3, 2, 1)]
    size = paths[0].stat().st_size
    assert folder.retain(Retention(4 * size + 100, 0.0), NOW_S) == []
    assert folder.retain(Retention(2 * size + 100, 0.0), NOW_S) == paths[:2]
    assert folder.retain(Retention(1, 0.0), NOW_S) == [paths[2]]
    assert [path for path, _ in folder.recordings()] == [paths[3]] and folder.deleted == 3


def test_a_recording_that_is_too_old_is_deleted(tmp_path):
    folder = RecordingFolder(tmp_path, "/front")
    old, young, newest = (stored(folder, age) for age in (8, 6, 0))
    assert folder.retain(Retention(10**9, 0.0), NOW_S) == []
    assert folder.retain(Retention(10**9, 7.0), NOW_S) == [old]
    assert young.exists() and newest.exists()


def test_other_files_are_neither_counted_nor_deleted_nor_recovered(tmp_path):
    folder = RecordingFolder(tmp_path, "/front")
    ours = stored(folder, 9)
    name = ours.name.replace("_test", "_other")
    others = {
        "drive.mcap": ours.read_bytes(),
        name: b"a file of another program with the name of a recording",
        "edge_vision_front_20231114T221320.250Z_x.mcap.txt": b"text",
        "drive.mcap.part": b"of another recorder",
    }
    for other, data in others.items():
        (tmp_path / other).write_bytes(data)
        os.utime(tmp_path / other, (1, 1))
    (tmp_path / "edge_vision_front_20231114T221320.250Z_link.mcap").symlink_to(tmp_path / "drive.mcap")
    (tmp_path / "edge_vision_front_20231114T221320.250Z_folder.mcap").mkdir()
    before = sorted(tmp_path.iterdir())
    newest = stored(folder, 0)
    assert folder.recover() == []
    assert folder.retain(Retention(1, 1.0), NOW_S) == [ours]
    assert sorted(tmp_path.iterdir()) == sorted({*before, newest} - {ours})


def test_after_a_jump_of_the_clock_the_newest_stays(tmp_path):
    folder = RecordingFolder(tmp_path, "/front")
    ahead, before, now = (stored(folder, age) for age in (-400, 1, 0))
    size = now.stat().st_size
    assert folder.retain(Retention(2 * size + 100, 7.0), NOW_S) == [ahead]
    unset = recording(folder.new_path("test", 30.0), 20).close()
    os.utime(unset, (30, 30))
    assert folder.retain(Retention(10**9, 7.0), NOW_S) == []
    assert folder.retain(Retention(1, 7.0), 60.0, unset) == [before, now]
    assert unset.exists()


def test_a_clock_that_is_set_forward_makes_nothing_older(tmp_path, monkeypatch):
    week, later_s = Retention(10**9, 7.0), NOW_S + 400 * DAY_S
    folder = RecordingFolder(tmp_path, "/front")
    six, one = stored(folder, 6), stored(folder, 1)
    assert folder.retain(week, NOW_S) == [] == folder.retain(week, later_s)
    ahead = stored(folder, -400)
    assert folder.retain(week, later_s) == []
    # What passes by itself counts, also while the machine is suspended.
    steady = time.clock_gettime
    monkeypatch.setattr(folder_module.time, "clock_gettime", lambda clock: steady(clock) + 2 * DAY_S)
    assert folder.retain(week, later_s + 2 * DAY_S) == [six]
    # Set back, and forward again.
    assert folder.retain(week, NOW_S) == [] == folder.retain(week, later_s + 2 * DAY_S)
    # The size counts in any case, the oldest first; and a process that begins now believes the clock.
    assert folder.retain(Retention(1, 7.0), later_s) == [one] and ahead.exists()
    eight = stored(folder, -392)
    assert RecordingFolder(tmp_path, "/front").retain(week, later_s) == [eight]


def test_a_clock_that_is_set_after_the_start_is_believed_once(tmp_path):
    folder = RecordingFolder(tmp_path, "/front")
    old, _ = stored(folder, 8), stored(folder, 0)
    assert folder.retain(Retention(10**9, 7.0), 60.0) == []
    assert folder.retain(Retention(10**9, 7.0), NOW_S) == [old]


def test_a_file_that_cannot_be_read_is_left_alone(tmp_path, monkeypatch):
    folder = RecordingFolder(tmp_path, "/front")
    ours, newest = stored(folder, 9), stored(folder, 0)
    closed = tmp_path / ours.name.replace("_test", "_closed")
    part = tmp_path / f"{closed.name}.part"
    closed.write_bytes(ours.read_bytes())
    part.write_bytes(ours.read_bytes())

    def refusing(function):
        def call(path, *args, **kwargs):
            if Path(path) in (closed, part):
                raise PermissionError(errno.EACCES, "Permission denied")
            return function(path, *args, **kwargs)

        return call

    monkeypatch.setattr(Path, "open", refusing(Path.open))
    monkeypatch.setattr(os, "open", refusing(os.open))
    assert folder.recover() == []
    assert folder.retain(Retention(1, 1.0), NOW_S) == [ours]
    assert sorted(tmp_path.iterdir()) == sorted([closed, part, newest])


def zstd_chunk(size: int, data: bytes) -> bytes:
    body = struct.pack("<QQQIIQ", 0, 0, size, 0, 0, len(data)) + data
    return b"\x89MCAP0\r\n" + struct.pack("<BQ", 0x06, len(body)) + body


@pytest.mark.parametrize("claim", ["content size", "bomb"])
def test_a_chunk_that_claims_more_than_the_memory_holds_is_not_read(tmp_path, claim):
    import zstandard

    if claim == "bomb":
        content = zstd_chunk(1 << 29, zstandard.compress(bytes(1 << 29)))
    else:
        content = zstd_chunk(1 << 20, b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 45) + b"\x01\0\0")
    part = tmp_path / "edge_vision_front_20231114T221320.250Z_x.mcap.part"
    part.write_bytes(content)
    code = (
        "import sys; from pathlib import Path; from edge_vision.record.recording_file import recover;"
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 29, 1 << 29));"
        "sys.exit(recover(Path(sys.argv[1])) is not None)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(part)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_part_of_another_program_is_not_deleted(tmp_path):
    part = tmp_path / "edge_vision_front_20231114T221320.250Z_x.mcap.part"
    part.write_bytes(b"a download of another program")
    assert RecordingFolder(tmp_path, "/front").recover() == [] and part.exists()
    part.write_bytes(bytes(5000))
    assert RecordingFolder(tmp_path, "/front").recover() == [] and not part.exists()


def test_a_folder_that_cannot_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError):
        RecordingFolder(tmp_path / "file" / "below", "a").prepare()
    with pytest.raises(OSError):
        RecordingFolder(Path("/proc/edge_vision"), "a").prepare()
    monkeypatch.setattr(folder_module, "MIN_FREE_BYTES", 1 << 62)
    with pytest.raises(OSError, match="MB free") as caught:
        RecordingFolder(tmp_path, "a").prepare()
    assert caught.value.errno == errno.ENOSPC
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_latched_topics_keep_their_quality_of_service(tmp_path):
    path = tmp_path / "a.mcap"
    file = RecordingFile(path, TOPICS)
    file.write("/front/labels", 5, numbered(1))
    file.close()
    ((topic, time_ns, message),) = read_with_rosbags(path)
    assert (topic, time_ns, message.data) == ("/front/labels", 5, "1 ")
    assert "durability: transient_local" in TOPICS["/front/labels"].qos
