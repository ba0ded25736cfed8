"""ROS 1 and ROS 2 bags through rosbags, without ROS: .bag, .db3, .mcap, and folders of them."""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

from edge_vision.core.compressed import compressed_frame
from edge_vision.core.frame import Frame, view_image
from edge_vision.core.missing_package import missing_package
from edge_vision.core.printable import printable
from edge_vision.core.redaction import redact_url
from edge_vision.core.stamp_check import MAX_STAMP_NS, stamp_to_ns
from edge_vision.errors import ImageError
from edge_vision.source.frame_times import FrameTimes, valid_fps
from edge_vision.source.image_source import ImageSource
from edge_vision.source.uri import SourceError, SourcePackageError, bag_files, source_kind

_IMAGE, _COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
_MAX_LISTED = 20
# Of thousands of files or hundreds of topics. A parsed megabyte takes seconds.
_MAX_METADATA_BYTES = 2**19
_REPAIR = "repair it with `ros2 bag reindex`, `mcap recover` or `rosbag reindex`, or copy it again"

Deserialize = Callable[[bytes, str], Any]


class UnreadableFrame(Frame):
    """A frame whose size and pixels raise the ImageError of its message."""

    __slots__ = ("_error",)
    _error: ImageError

    def __init__(self, error: ImageError, stamp_ns: int, frame_id: str, seq: int = 0) -> None:
        given = (("_error", error), ("stamp_ns", stamp_ns), ("frame_id", frame_id), ("seq", seq))
        for name, value in (*given, ("encoding", ""), ("origin", None)):
            object.__setattr__(self, name, value)

    @property
    def image(self) -> Any:
        """Raises ImageError."""
        raise self._error

    @property
    def width_px(self) -> int:
        raise self._error

    def with_header(self, stamp_ns: int, frame_id: str, seq: int) -> Frame:
        return UnreadableFrame(self._error, stamp_ns, frame_id, seq)


class BagCapture(ImageSource):
    """The images of one `topic` of a bag, in the order and at the intervals in which they were recorded."""

    def __init__(self, uri: str, skip_unreadable: bool = True) -> None:
        """skip_unreadable: decode each image, and skip those that cannot be; otherwise `frame` returns an
        UnreadableFrame, or one whose decoding may fail. Raises SourceError."""
        self.kind, self._shown = source_kind(uri), redact_url(uri)
        self._skip = skip_unreadable
        self._frame: Frame | None = None
        self._start_ns: int | None = None
        self._read, self._unreadable, self._fault, self._last_error = 0, Counter[str](), "", ""
        with contextlib.ExitStack() as opened, self._errors():
            self._readers = [opened.enter_context(reader) for reader in _readers(Path(str(self.kind.target)))]
            self._deserialize: Deserialize = _deserializer(self._readers[0])
            self.topic = self._chosen_topic()
            self._messages = self._open_messages()
            self._opened = opened.pop_all()
        self.times = FrameTimes(self.fps_hz)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SourceError:
            raise
        except FileNotFoundError:
            raise SourceError(f"source '{self._shown}' does not exist: check the path") from None
        except ModuleNotFoundError as error:
            raise SourcePackageError(f"source '{self._shown}' is a bag: {missing_package(error)}") from None
        except Exception as error:  # rosbags raises many types of errors about damaged files.
            raise SourceError(f"bag '{self._shown}' cannot be read: {_text(error)}; {_REPAIR}") from None

    def _chosen_topic(self) -> str:
        """The topic that was asked for, else the only one with images. Raises SourceError."""
        counts: Counter[str] = Counter()
        for one in self._connections():
            counts[one.topic] += one.msgcount
        wanted = self.kind.topic.strip("/")
        topics = [t for t in counts if (t.strip("/") == wanted if wanted else counts[t])]
        if len(topics) == 1:
            return topics[0]
        if not counts:
            found = (one for reader in self._readers for one in reader.connections)
            others = _listed({one.topic: one.msgtype for one in found})
            raise SourceError(f"bag '{self._shown}' has no image topic, only {others or 'no topic at all'}")
        images = _listed({topic: f"{count} images" for topic, count in counts.items()})
        if wanted:
            raise SourceError(f"bag '{self._shown}' has no images on that topic: choose one of {images}")
        raise SourceError(
            f"expected one image topic in bag '{self._shown}', got {images}: append one, as in "
            f"'{self._shown}#{printable(next(iter(counts)))}'"
        )

    def _connections(self) -> list[Any]:
        types = (_IMAGE, _COMPRESSED)
        return [one for reader in self._readers for one in reader.connections if one.msgtype in types]

    def _open_messages(self) -> Iterator[tuple[Any, int, bytes]]:
        """The messages of the topic, by time. Also sets `frames` and `fps_hz`."""
        chosen = [one for one in self._connections() if one.topic == self.topic]
        self.frames = sum(one.msgcount for one in chosen)
        parts = [(reader, [one for one in chosen if one in reader.connections]) for reader in self._readers]
        parts = [(reader, connections) for reader, connections in parts if connections]
        span_ns = max(reader.end_time for reader, _ in parts) - min(reader.start_time for reader, _ in parts)
        self.fps_hz = valid_fps((self.frames - 1) / span_ns * 1e9 if span_ns > 0 else 0.0)
        return heapq.merge(
            *(reader.messages(connections=connections) for reader, connections in parts), key=itemgetter(1)
        )

    def grab(self) -> bool:
        """See ImageSource. Raises SourceError at the end of a bag of which no image can be read."""
        while (message := self._next_message()) is not None:
            connection, time_ns, data = message
            self._read += 1
            self._frame = self._frame_of(connection.msgtype, time_ns, data)
            if self._skip and not self._is_decodable(self._frame):
                continue
            self._start_ns = time_ns if self._start_ns is None else self._start_ns
            self.times.advance((time_ns - self._start_ns) / 1e6)
            return True
        if self._start_ns is None and self.damage:
            raise SourceError(self.damage)
        return False

    def _next_message(self) -> tuple[Any, int, bytes] | None:
        try:
            return next(self._messages, None)
        except Exception as error:  # As when opening.
            self._fault = _text(error)
            return None

    def _frame_of(self, msgtype: str, time_ns: int, data: bytes) -> Frame:
        """The frame of a message. Without a readable header it has the time of the recording."""
        stamp_ns, frame_id = min(max(0, time_ns), MAX_STAMP_NS), ""
        try:
            message = self._deserialize(data, msgtype)
            frame_id = message.header.frame_id
            stamp_ns = stamp_to_ns(message.header.stamp)
            if msgtype == _COMPRESSED:
                return compressed_frame(message.data, message.format, stamp_ns, frame_id)
            size = message.width, message.height, message.step
            image = view_image(message.data, *size, message.encoding, bool(message.is_bigendian))
            return Frame(image, stamp_ns, frame_id, message.encoding)
        except ImageError as error:
            problem = error
        except Exception as error:  # Of rosbags, about a damaged message.
            problem = ImageError("truncated", f"expected a {msgtype}, got a damaged one: {_text(error)}")
        self._count(problem)
        return UnreadableFrame(problem, stamp_ns, frame_id)

    def _is_decodable(self, frame: Frame) -> bool:
        try:
            return frame.image is not None
        except ImageError as error:
            if not isinstance(frame, UnreadableFrame):
                self._count(error)
            return False

    def _count(self, error: ImageError) -> None:
        self._unreadable[error.reason] += 1
        self._last_error = str(error)

    def frame(self) -> Frame | None:
        return self._frame

    @property
    def damage(self) -> str:
        parts = []
        if self._fault:
            parts.append(f"ended after {self._read} of {self.frames} images: {self._fault}; {_REPAIR}")
        if self._unreadable:
            counts = ", ".join(f"{reason} {count}" for reason, count in self._unreadable.items())
            parts.append(
                f"has unreadable images ({counts}, of {self._read}), the last one: {self._last_error}"
            )
        return f"bag '{self._shown}' {' and '.join(parts)}" if parts else ""

    def close(self) -> None:
        with contextlib.suppress(Exception):  # As when opening.
            self._opened.close()


def _readers(path: Path) -> list[Any]:
    from rosbags.rosbag1 import Reader as Ros1Reader
    from rosbags.rosbag2 import Reader as Ros2Reader

    files = bag_files(path)
    for file in files:
        _check_files(file)
    return [(Ros1Reader if file.suffix == ".bag" else Ros2Reader)(file) for file in files]


def _check_files(path: Path) -> None:
    """Raise SourceError for files that would block or occupy their reader: pipes, and large metadata."""
    for file in path.iterdir() if path.is_dir() else [path]:
        if file.exists() and not file.is_file() and not file.is_dir():
            raise SourceError(f"bag '{file}' is a pipe or device: copy the recording to a regular file")
        if file.name == "metadata.yaml" and file.stat().st_size > _MAX_METADATA_BYTES:
            raise SourceError(
                f"expected at most {_MAX_METADATA_BYTES} bytes, got a larger '{file}': play a file of the bag"
            )


def _deserializer(reader: Any) -> Deserialize:
    """Reads image messages by their standard definition, whatever definitions the bag contains."""
    from rosbags.rosbag1 import Reader as Ros1Reader
    from rosbags.typesys import Stores, get_typestore

    if isinstance(reader, Ros1Reader):
        return get_typestore(Stores.ROS1_NOETIC).deserialize_ros1
    return get_typestore(Stores.ROS2_JAZZY).deserialize_cdr


def _listed(topics: dict[str, str]) -> str:
    shown = [f"{topic[:100]} ({what[:100]})" for topic, what in list(topics.items())[:_MAX_LISTED]]
    more = [f"{len(topics) - _MAX_LISTED} more"] if len(topics) > _MAX_LISTED else []
    return printable(", ".join(shown + more))


def _text(error: Exception) -> str:
    return printable(f"{error}"[:300]).rstrip(".") or type(error).__name__
