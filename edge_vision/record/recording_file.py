"""A recording on disk: NAME.mcap.part while it is written, flushed once a second, NAME.mcap once complete.

What a kill or a full disk leaves is closed in place: everything up to the last intact record, an end, and no
index. Readers then read such a file from its beginning to its end.
"""

from __future__ import annotations

import fcntl
import io
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from edge_vision.record.mcap_writer import RecordedTopic, Ros2McapWriter
from edge_vision.updates.durable import sync_folder

PART = ".part"
MAGIC = b"\x89MCAP0\r\n"
_HEADER, _FOOTER, _CHUNK, _DATA_END = 0x01, 0x02, 0x06, 0x0F
_RECORD = struct.Struct("<BQ")
_CHUNK_HEAD = struct.Struct("<QQQII")
# The end of the data, without a checksum; a footer that says that there is no summary.
_END = _RECORD.pack(_DATA_END, 4) + bytes(4) + _RECORD.pack(_FOOTER, 20) + bytes(20) + MAGIC
MAX_CHUNK_BYTES = 1 << 30
_MAX_WINDOW_BYTES, _PIECE_BYTES = 1 << 27, 1 << 18


class _Stream:
    """What the writer needs of a file, unbuffered: after a failure nothing is written later."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0

    def write(self, data: bytes) -> int:
        left = memoryview(data)
        while left:
            done = os.write(self._descriptor, left)
            self._at, left = self._at + done, left[done:]
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        """Nothing is buffered."""


class RecordingFile:
    """One recording. One thread uses it. Its lock tells others that the file is being written.

    topics: by name. path: of the complete file.
    """

    def __init__(
        self, path: Path, topics: Mapping[str, RecordedTopic], about: Mapping[str, str] | None = None
    ) -> None:
        """Create the file. about: kept as metadata named edge_vision. Raises OSError."""
        self.path, self._topics = path, topics
        self._part = path.with_name(path.name + PART)
        self._descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        self._channels: dict[str, int] = {}
        self.messages = self._intact = 0
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._stream = _Stream(self._descriptor)
            self._writer = Ros2McapWriter(self._stream)
            self._writer.add_metadata("edge_vision", dict(about or {}))
        except OSError:
            self._remove()
            raise

    @property
    def size_bytes(self) -> int:
        """Written so far."""
        return self._stream.tell()

    def write(self, topic: str, time_ns: int, data: bytes) -> None:
        """Add a message. Raises OSError."""
        channel = self._channels.get(topic)
        if channel is None:
            channel = self._channels[topic] = self._writer.add_topic(self._topics[topic])
        self._writer.write(channel, time_ns, data)
        self.messages += 1

    def flush(self) -> None:
        """Bring everything so far to the disk, where it survives a kill and a power cut. Raises OSError."""
        self._writer.flush()
        os.fsync(self._descriptor)
        self._intact = self._stream.tell() if self.messages else 0

    def close(self) -> Path:
        """Complete the file. Returns its path. Raises OSError."""
        self._writer.finish()
        return self._publish()

    def cut(self) -> Path | None:
        """Close the file after a failed write, with what had been flushed. Returns its path; None if that
        was nothing, or this fails as well: what is left is then recovered at the next start."""
        try:
            if not self._intact or not _end_at(self._descriptor, self._intact):
                self._remove()
                return None
            return self._publish()
        except OSError:
            os.close(self._descriptor)
            return None

    def _publish(self) -> Path:
        os.fsync(self._descriptor)
        self.path = _free(self.path)
        self._part.rename(self.path)
        os.close(self._descriptor)
        sync_folder(self.path.parent)
        return self.path

    def _remove(self) -> None:
        self._part.unlink(missing_ok=True)
        os.close(self._descriptor)


def recover(part: Path) -> Path | None:
    """Complete a file that was cut short. Returns its new path; None if it holds no message, and was
    removed, if another process writes it, or if it is not ours. Raises OSError."""
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        with os.fdopen(os.dup(descriptor), "rb") as file:
            head = file.read(len(MAGIC))
            # Zeros: after a power cut, a file may be longer than what reached the disk.
            if not MAGIC.startswith(head) and head.strip(b"\0"):
                return None
            intact = intact_bytes(file)
        if not _end_at(descriptor, intact):
            part.unlink()
            return None
        path = part.with_name(part.name.removesuffix(PART))
        if os.path.lexists(path):
            path = _free(path.with_name(f"{path.stem}-recovered{path.suffix}"))
        part.rename(path)
        sync_folder(path.parent)
        return path
    finally:
        os.close(descriptor)


def _free(path: Path) -> Path:
    """The path, or one with a number if it is taken: after a jump of the clock, times come again."""
    free, number = path, 1
    while os.path.lexists(free):
        number += 1
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
    return free


def _end_at(descriptor: int, length: int) -> bool:
    """Cut a file behind its last intact record, and end it. False if there is none to keep."""
    if length == 0:
        return False
    os.ftruncate(descriptor, length)
    os.pwrite(descriptor, _END, length)
    os.fsync(descriptor)
    return True


def intact_bytes(file: BinaryIO) -> int:
    """The length up to the last intact record before the end of the data; 0 without an intact chunk."""
    size = os.fstat(file.fileno()).st_size
    file.seek(0)
    if file.read(len(MAGIC)) != MAGIC:
        return 0
    at, chunks = len(MAGIC), 0
    while len(head := file.read(_RECORD.size)) == _RECORD.size:
        kind, length = _RECORD.unpack(head)
        # Zeros: after a power cut, a file may be longer than what reached the disk.
        if kind in (0, _DATA_END, _FOOTER) or at + _RECORD.size + length > size:
            break
        if kind == _CHUNK:
            if not _is_intact(file, length):
                break
            chunks += 1
        at += _RECORD.size + length
        file.seek(at)
    return at if chunks else 0


class _Compressed(io.RawIOBase):
    """So many of the next bytes of a file."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, self._left) if size >= 0 else self._left)
        self._left -= len(data)
        return data


def _is_intact(file: BinaryIO, length: int) -> bool:
    """Whether a chunk of our writer has its checksum. Piece by piece: what it claims to hold may not fit into
    the memory."""
    try:
        _, _, size, checksum, name_length = _CHUNK_HEAD.unpack(file.read(_CHUNK_HEAD.size))
        left = length - _CHUNK_HEAD.size - name_length - 8
        if not 0 <= left <= MAX_CHUNK_BYTES or size > MAX_CHUNK_BYTES:
            return False
        file.seek(name_length + 8, os.SEEK_CUR)
        found = count = 0
        decompressor = zstandard.ZstdDecompressor(max_window_size=_MAX_WINDOW_BYTES)
        source: Any = _Compressed(file, left)  # Its `read` is all that is used.
        with decompressor.stream_reader(source, closefd=False) as stream:
            while count <= size and (piece := stream.read(_PIECE_BYTES)):
                found, count = zlib.crc32(piece, found), count + len(piece)
        return count == size and found == checksum
    except (struct.error, zstandard.ZstdError):
        return False
