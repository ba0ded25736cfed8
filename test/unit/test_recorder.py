"""The recorder's thread: what it keeps around a trigger, what it drops and counts, and failing disks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from record_cases import SETTINGS, TOPIC, TOPICS, numbered, numbers_in, read_independently, text_message

from edge_vision.record import folder as folder_module
from edge_vision.record import recorder as module
from edge_vision.record.folder import RecordingFolder
from edge_vision.record.recorder import Recorder

LIMIT_S = 30.0
Make = Callable[..., Recorder]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Starts recorders that end with the test: make(before_s=...)."""
    made: list[Recorder] = []

    def one(**changes: Any) -> Recorder:
        given = {name: changes.pop(name) for name in ("derive", "latched", "on_event") if name in changes}
        folder = RecordingFolder(tmp_path, "/front")
        made.append(Recorder(folder, TOPICS, replace(SETTINGS, **changes), **given))
        made[-1].start()
        return made[-1]

    yield one
    for recorder in made:
        recorder.stop()


def wait(happened: Callable[[], Any], what: str) -> Any:
    until_s = time.monotonic() + LIMIT_S
    while not (result := happened()):
        assert time.monotonic() < until_s, f"waited for {what}"
        time.sleep(0.005)
    return result


def finished(recorder: Recorder, files: int = 1) -> Path:
    wait(lambda: recorder.counts["written.files"] >= files and not recorder.recording, "the recording")
    return Path(recorder.last_file)


def images_add_up(recorder: Recorder) -> bool:
    count = recorder.counts
    kept = sum(count[f"images.{name}"] for name in ("skipped", "superseded", "failed", "kept"))
    return count["images.received"] == kept


def test_what_came_before_and_after_the_trigger_is_in_the_file(make):
    recorder = make(before_s=100.0, after_s=0.3)
    for number in range(50):
        recorder.add(TOPIC, numbered(number))
    assert recorder.trigger("snapshot") == ""
    for number in range(50, 60):
        recorder.add(TOPIC, numbered(number))
    path = finished(recorder)
    assert numbers_in(path) == list(range(60)) and path.name.endswith("_snapshot.mcap")
    assert recorder.counts["written.messages"] == 60 and recorder.counts["written.missed"] == 0
    assert recorder.counts["written.bytes"] == path.stat().st_size


def test_what_is_too_old_is_not(make, monkeypatch):
    monkeypatch.setattr(module, "IDLE_TURN_S", 0.02)
    recorder = make(before_s=0.3, after_s=0.0)
    recorder.add(TOPIC, numbered(1))
    wait(lambda: recorder.ring.removed == 1, "the message to be forgotten")
    recorder.add(TOPIC, numbered(2))
    recorder.trigger("a")
    assert numbers_in(finished(recorder)) == [2]


def test_the_times_never_go_back_and_are_those_of_the_wall_clock(make, monkeypatch):
    """Whatever the stamps and clocks of the robot do."""
    recorder = make(before_s=100.0)
    started_s = time.time()
    for number in range(20):
        recorder.add(TOPIC, numbered(number))
    monkeypatch.setattr(module.time, "time", lambda: started_s - 0.5)
    recorder.trigger("a")
    times = [time_ns for _, time_ns, _ in read_independently(finished(recorder))]
    assert times == sorted(times) and len(times) == 20
    assert all(abs(at / 1e9 - started_s) < LIMIT_S for at in times)


def test_latched_messages_are_at_the_beginning_of_every_file(make):
    recorder = make(latched=frozenset({"/front/labels"}), before_s=0.0, after_s=0.1)
    recorder.add("/front/labels", text_message("old"))
    recorder.add("/front/labels", text_message("person dog"))
    time.sleep(0.05)
    for files in (1, 2):
        recorder.trigger("a")
        recorder.add(TOPIC, numbered(files))
        found = read_independently(finished(recorder, files))
        assert found[0][0] == "/front/labels" and found[0][2].data == "person dog"


def test_a_further_trigger_prolongs_and_a_storm_makes_one_file_up_to_the_limit(make):
    recorder = make(before_s=0.0, after_s=0.2, max_s=0.6, quiet_s=1000.0)
    stop, triggers = time.monotonic() + 1.0, 0
    while time.monotonic() < stop:
        recorder.trigger("storm", by_rule=True)
        recorder.add(TOPIC, numbered(triggers))
        triggers += 1
    finished(recorder)
    assert "rules are ignored" in recorder.trigger("storm", by_rule=True)
    assert recorder.trigger("snapshot") == "", "a request does not wait"
    finished(recorder, 2)
    count = recorder.counts
    assert count["triggers.accepted"] + count["triggers.suppressed"] == triggers + 2
    assert count["triggers.suppressed"] > 0 and count["written.files"] == 2
    assert len(list(recorder.folder.path.iterdir())) == 2


def test_the_newest_image_wins_and_a_slow_encoder_delays_nobody(make):
    recorder, released = make(before_s=100.0), threading.Event()
    began = threading.Event()

    def slow() -> tuple[str, bytes]:
        began.set()
        released.wait(LIMIT_S)
        return TOPIC, numbered(0)

    recorder.offer_image(slow)
    began.wait(LIMIT_S)
    started_s = time.monotonic()
    for number in range(1, 200):
        recorder.offer_image(lambda number=number: (TOPIC, numbered(number)))
        recorder.add("/front/labels", text_message("x"))
    assert time.monotonic() - started_s < LIMIT_S / 3, "no call has waited for the encoder"
    released.set()
    wait(lambda: recorder.counts["images.kept"] == 2, "the newest image")
    assert recorder.counts["images.superseded"] == 198 and images_add_up(recorder)
    recorder.trigger("a")
    assert numbers_in(finished(recorder)) == [0, 199]


def test_a_file_is_in_the_order_of_time_although_images_are_encoded_late(make):
    from mcap.records import Message
    from mcap.stream_reader import StreamReader

    recorder, added = make(before_s=100.0, after_s=0.5), threading.Event()

    def slow(number: int) -> tuple[str, bytes]:
        added.wait(LIMIT_S)
        return TOPIC, numbered(number)

    recorder.offer_image(lambda: slow(0))
    wait(lambda: recorder._image is None, "the encoder to begin")
    for number in range(1, 5):
        recorder.add(TOPIC, numbered(number))
    added.set()
    wait(lambda: recorder.counts["images.kept"] == 1, "the image")
    recorder.trigger("a")
    for number in range(5, 300):
        if number % 10 == 0:
            recorder.offer_image(lambda number=number: (time.sleep(0.005), (TOPIC, numbered(number)))[1])
        else:
            recorder.add(TOPIC, numbered(number))
        time.sleep(0.001)
    path = finished(recorder)
    with path.open("rb") as file:
        found = [one for one in StreamReader(file).records if isinstance(one, Message)]
    times = [one.log_time for one in found]
    assert len(found) > 200 and times == sorted(times), "as it lies in the file"
    assert b"0 " in found[0].data, "the image that came first"


def test_images_are_kept_at_the_rate_that_is_set(make, monkeypatch):
    recorder, now_ns = make(image_hz=5.0), [10**12]
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: now_ns[0])
    kept = []
    for number in range(100):  # 10 Hz, with the jitter of a camera.
        before = recorder.counts["images.skipped"]
        now_ns[0] = 10**12 + number * 10**8 + (number * 7919 % 21 - 10) * 10**6
        recorder.offer_image(lambda: (TOPIC, numbered(0)))
        if recorder.counts["images.skipped"] == before:
            kept.append(number)
    assert kept == list(range(0, 100, 2))
    monkeypatch.undo()
    wait(lambda: images_add_up(recorder), "the accounts")


def test_an_image_that_cannot_be_encoded_is_counted_and_logged(make):
    texts: list[str] = []
    recorder = make(on_event=lambda severity, text: texts.append(text))

    def broken() -> tuple[str, bytes]:
        raise ValueError("expected an image, got nonsense")

    recorder.offer_image(broken)
    wait(lambda: recorder.counts["images.failed"] == 1, "the failure")
    recorder.offer(broken)
    recorder.offer_image(lambda: (TOPIC, bytes(SETTINGS.ring_bytes)))
    wait(lambda: recorder.counts["images.failed"] == 2 and images_add_up(recorder), "the next")
    assert recorder.counts["messages.failed"] == 1 and recorder.ring.refused == 1
    assert texts == ["not recorded: expected an image, got nonsense"] * 2


def test_the_ring_stays_within_its_bound_while_the_disk_is_slow(make, monkeypatch):
    recorder = make(ring_bytes=200_000, before_s=100.0, after_s=0.5)
    write = module.RecordingFile.write
    monkeypatch.setattr(
        module.RecordingFile, "write", lambda self, *args: (time.sleep(0.01), write(self, *args))
    )
    recorder.trigger("a")
    for number in range(1000):
        recorder.add(TOPIC, numbered(number, "x" * 2000))
        assert recorder.ring.bytes <= 200_000
        time.sleep(0.0005)
    numbers = numbers_in(finished(recorder))
    count = recorder.counts
    assert numbers == sorted(set(numbers)) and count["written.missed"] > 0
    assert len(numbers) + count["written.missed"] <= 1000


def test_derived_messages_follow_their_source(make):
    recorder = make(derive=lambda topic, data: ("/front/labels", data) if topic == TOPIC else None)
    recorder.add(TOPIC, numbered(7))
    recorder.trigger("a")
    found = [(topic, message.data) for topic, _, message in read_independently(finished(recorder))]
    assert found == [(TOPIC, "7 "), ("/front/labels", "7 ")]


def test_a_message_of_which_nothing_can_be_derived_is_recorded(make):
    def derive(topic: str, data: bytes) -> Any:
        raise RuntimeError("cannot be deserialized")

    events: list[tuple[str, str]] = []
    recorder = make(derive=derive, on_event=lambda *event: events.append(event))
    recorder.add(TOPIC, numbered(7))
    recorder.trigger("a")
    assert numbers_in(finished(recorder)) == [7]
    assert recorder.counts["messages.failed"] == 1
    assert ("warning", f"nothing derived of {TOPIC}: cannot be deserialized") in events


def test_a_clock_that_starts_at_1970_is_recorded(make, monkeypatch):
    recorder = make(before_s=10.0, latched=frozenset({"/front/labels"}))
    recorder.add("/front/labels", text_message("labels"))
    recorder.ring.forget(time.monotonic_ns())
    recorder.add(TOPIC, numbered(1))
    monkeypatch.setattr(module.time, "time", lambda: 3.0)
    recorder.trigger("a")
    found = read_independently(finished(recorder))
    assert [topic for topic, _, _ in found] == ["/front/labels", TOPIC]
    assert 0 <= found[0][1] <= found[1][1] < 60 * 10**9


def test_an_unexpected_error_ends_the_recording_only(make, monkeypatch):
    monkeypatch.setattr(module, "RETRY_S", 0.1)
    monkeypatch.setattr(module, "IDLE_TURN_S", 0.01)
    recorder = make()
    recorder.add("/unknown", numbered(1))
    recorder.trigger("a")
    wait(lambda: recorder.trouble, "the error")
    wait(lambda: not recorder.trouble, "the next check")
    recorder.ring.forget(time.monotonic_ns())
    recorder.add(TOPIC, numbered(2))
    recorder.trigger("b")
    assert numbers_in(finished(recorder)) == [2]


def test_a_disk_that_becomes_full_ends_the_recording_and_is_tried_again(make, monkeypatch):
    monkeypatch.setattr(module, "FLUSH_S", 0.02)
    monkeypatch.setattr(module, "TURN_S", 0.01)
    monkeypatch.setattr(module, "IDLE_TURN_S", 0.01)
    monkeypatch.setattr(module, "RETRY_S", 0.1)
    recorder = make(before_s=100.0, after_s=100.0, max_s=100.0)
    for number in range(100):
        recorder.add(TOPIC, numbered(number))
    recorder.trigger("a")
    wait(lambda: recorder._file and recorder._file._intact > 1000, "a flush")
    with monkeypatch.context() as full:
        full.setattr(folder_module, "MIN_FREE_BYTES", 1 << 62)
        wait(lambda: recorder.trouble, "the full disk")
        assert "MB free" in recorder.trouble and not recorder.recording
        assert recorder.trigger("b") == recorder.trouble
        assert recorder.counts["triggers.refused"] == 1
    assert numbers_in(Path(recorder.last_file)) == list(range(100))
    wait(lambda: not recorder.trouble, "space again")
    recorder.trigger("c")
    recorder.stop()
    assert recorder.counts["written.files"] == 2 and recorder.last_file.endswith("_c.mcap")


def test_a_folder_that_vanishes_is_made_again(make, tmp_path):
    recorder = make()
    tmp_path.rmdir()
    recorder.add(TOPIC, numbered(1))
    recorder.trigger("a")
    assert numbers_in(finished(recorder)) == [1]


def test_the_end_of_the_process_completes_the_file(make):
    recorder = make(before_s=100.0, after_s=100.0, max_s=100.0)
    for number in range(3000):
        recorder.add(TOPIC, numbered(number, "x" * 1000))
    recorder.trigger("a")
    recorder.stop()
    assert numbers_in(Path(recorder.last_file)) == list(range(3000))


def test_it_completes_what_an_earlier_process_left(make, tmp_path):
    first = make(before_s=100.0, after_s=100.0, max_s=100.0)
    first.add(TOPIC, numbered(1))
    first.trigger("a")
    wait(lambda: first._file and first._file._intact, "a flush")
    (part,) = tmp_path.glob("*.part")
    left = part.read_bytes()
    first.stop()
    Path(first.last_file).unlink()
    part.write_bytes(left)
    texts: list[str] = []
    second = make(on_event=lambda severity, text: texts.append(text))
    assert second.folder.recovered == 1 and "cut short" in texts[0]
    assert numbers_in(next(tmp_path.glob("*.mcap"))) == [1]


def test_all_parts_of_the_status_add_up(make):
    recorder = make(ring_bytes=50_000, before_s=100.0)
    for number in range(200):
        recorder.add(TOPIC, numbered(number, "x" * 500))
    status = recorder.status()
    assert status["messages.received"] == status["ring.added"] == 200
    assert status["ring.added"] == status["ring.messages"] + status["ring.removed"]
    assert status["ring.mb"] <= status["ring.max_mb"] == 0.05
