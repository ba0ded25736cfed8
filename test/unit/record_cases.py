"""Recordings: messages with numbers, a recorder that runs in a process of its own, and two readers.

`python record_cases.py FOLDER SEED` records without end, and prints after each flush and each file how many
messages have reached the disk.
"""

from __future__ import annotations

import random
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edge_vision.record.folder import RecordingFolder, Retention
from edge_vision.record.mcap_writer import RecordedTopic, qos_text
from edge_vision.record.recorder import Recorder, RecorderSettings
from edge_vision.record.recording_file import RecordingFile

TOPIC = "/front/number"
TOPICS = {
    TOPIC: RecordedTopic(TOPIC, "std_msgs/msg/String", "string data\n", qos_text(5)),
    "/front/labels": RecordedTopic(
        "/front/labels", "std_msgs/msg/String", "string data\n", qos_text(1, True, True)
    ),
}
SETTINGS = RecorderSettings(
    ring_bytes=4_000_000,
    image_hz=0.0,
    before_s=0.2,
    after_s=0.2,
    max_s=2.0,
    quiet_s=0.0,
    retention=Retention(10**9, 0.0),
)


def text_message(text: str) -> bytes:
    """A serialized std_msgs/String."""
    raw = text.encode() + b"\0"
    return b"\0\1\0\0" + struct.pack("<I", len(raw)) + raw


def numbered(number: int, filler: str = "") -> bytes:
    return text_message(f"{number} {filler}")


def read_independently(path: Path) -> list[tuple[str, int, Any]]:
    """Topic, time and decoded message, as the package mcap-ros2-support reads them."""
    from mcap.reader import make_reader
    from mcap_ros2.decoder import DecoderFactory

    with path.open("rb") as file:
        reader = make_reader(file, decoder_factories=[DecoderFactory()])
        return [
            (channel.topic, message.log_time, decoded)
            for _, channel, message, decoded in reader.iter_decoded_messages()
        ]


def read_with_rosbags(path: Path) -> list[tuple[str, int, Any]]:
    """The same, as rosbags reads them."""
    from rosbags.highlevel import AnyReader

    with AnyReader([path]) as reader:
        return [
            (one.topic, time_ns, reader.deserialize(data, one.msgtype))
            for one, time_ns, data in reader.messages()
        ]


def numbers_in(path: Path) -> list[int]:
    """The numbers of the messages of a recording, which both readers find."""
    found = [int(m.data.split()[0]) for topic, _, m in read_independently(path) if topic == TOPIC]
    same = [int(m.data.split()[0]) for topic, _, m in read_with_rosbags(path) if topic == TOPIC]
    assert found == same
    return found


class _Reporting(RecordingFile):
    """Prints what has reached the disk: `FILE COUNT`."""

    def flush(self) -> None:
        super().flush()
        print(f"{self.path.name} {self.messages}", flush=True)


def record_forever(folder: Path, seed: int) -> Iterator[None]:
    """One step per message. With images, and rules that trigger at random."""
    import cv2
    import numpy as np

    from edge_vision.record import recorder as module

    module.RecordingFile = _Reporting  # type: ignore[misc]
    module.FLUSH_S, module.TURN_S = 0.02, 0.01
    draw = random.Random(seed)
    noise = np.random.default_rng(seed).integers(0, 256, (120, 160, 3), np.uint8)
    one = Recorder(RecordingFolder(folder, "/front"), TOPICS, SETTINGS)
    one.start()
    for number in range(10**9):
        picture = cv2.imencode(".jpg", noise)[1].tobytes()
        one.add(TOPIC, numbered(number, "x" * (len(picture) % 5000)))
        if draw.random() < 0.02:
            one.trigger("rule", by_rule=True)
        time.sleep(0.002)
        yield


if __name__ == "__main__":
    for _ in record_forever(Path(sys.argv[1]), int(sys.argv[2])):
        pass
