"""ROS 2 messages in MCAP (https://mcap.dev/spec), as `ros2 bag record` writes them: profile ros2, schemas in
ros2msg, CDR, and the publishers' quality of service in the metadata of the channels."""

from __future__ import annotations

from typing import Any, NamedTuple

from mcap.writer import CompressionType, Writer

from edge_vision import __version__

LIBRARY = "edge_vision"
PROFILE = "ros2"
_FOREVER = "{sec: 9223372036, nsec: 854775807}"


class RecordedTopic(NamedTuple):
    """definition: of the message type, as in the schemas of rosbag2. qos: the publisher's, see `qos_text`."""

    name: str
    type: str
    definition: str
    qos: str
    format: str = "ros2msg"
    encoding: str = "cdr"


def qos_text(depth: int, reliable: bool = True, latched: bool = False) -> str:
    """A quality of service in the YAML of rosbag2 since Jazzy (metadata version 9)."""
    policies = {
        "history": "keep_last",
        "depth": depth,
        "reliability": "reliable" if reliable else "best_effort",
        "durability": "transient_local" if latched else "volatile",
        "deadline": _FOREVER,
        "lifespan": _FOREVER,
        "liveliness": "automatic",
        "liveliness_lease_duration": _FOREVER,
        "avoid_ros_namespace_conventions": "false",
    }
    return "- " + "\n  ".join(f"{name}: {value}" for name, value in policies.items())


class Ros2McapWriter:
    """Writes to a binary stream with write, tell and flush, in chunks of 1 MB with a checksum."""

    def __init__(self, stream: Any, compress: bool = True) -> None:
        self._writer: Any = Writer(stream, compression=CompressionType["ZSTD" if compress else "NONE"])
        self._writer.start(PROFILE, f"{LIBRARY} {__version__}")
        self._schemas: dict[tuple[str, str], int] = {}

    def add_topic(self, topic: RecordedTopic) -> int:
        """The channel of a topic, for `write`."""
        kind = topic.type, topic.definition  # Releases of a package may differ between the topics of a bag.
        if kind not in self._schemas:
            self._schemas[kind] = self._writer.register_schema(
                topic.type, topic.format, topic.definition.encode()
            )
        metadata = {"offered_qos_profiles": topic.qos}
        return self._writer.register_channel(topic.name, topic.encoding, self._schemas[kind], metadata)

    def write(self, channel: int, time_ns: int, data: bytes | memoryview) -> None:
        """Write a serialized message."""
        self._writer.add_message(channel, time_ns, bytes(data), time_ns)

    def add_metadata(self, name: str, values: dict[str, str]) -> None:
        """Write a metadata record."""
        self._writer.add_metadata(name, values)

    def flush(self) -> None:
        """End the chunk: what was written so far can be read without the rest of the file."""
        self._writer.flush()

    def finish(self) -> None:
        """Write the last chunk and the index."""
        self._writer.finish()
