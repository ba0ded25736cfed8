"""Video files that cv2.VideoWriter cannot write: unevenly spaced frames, and a rotation in the container."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

WIDTH_PX, HEIGHT_PX = 96, 64
CORNER_PX = 24


def frame_with_white_corner(level: int = 60) -> np.ndarray:
    """(HEIGHT_PX, WIDTH_PX, 3), uniform except its top left corner."""
    image = np.full((HEIGHT_PX, WIDTH_PX, 3), level, np.uint8)
    image[:CORNER_PX, :CORNER_PX] = 255
    return image


def white_corner(image: np.ndarray) -> str:
    """Which corner of an image is white: top left, ..."""
    at = {"top": 8, "bottom": -9}, {"left": 8, "right": -9}
    corners = {f"{y} {x}": image[at[0][y], at[1][x]].mean() for y in at[0] for x in at[1]}
    return max(corners, key=lambda name: corners[name])


def _element(number: int, content: bytes | int | str) -> bytes:
    """An EBML element: number, size in 8 bytes, content."""
    data = content.to_bytes(8, "big") if isinstance(content, int) else content
    data = data.encode() if isinstance(data, str) else data
    head = number.to_bytes((number.bit_length() + 7) // 8, "big")
    return head + (1 << 56 | len(data)).to_bytes(8, "big") + data


def write_matroska(path: Path, times_ms: Sequence[int], level_step: int = 2) -> Path:
    """Motion JPEG with a frame at each of times_ms; frame n is uniform, of level 20 + level_step * n."""
    head = _element(0x1A45DFA3, _element(0x4282, "matroska") + _element(0x4287, 4) + _element(0x4285, 2))
    size = _element(0xE0, _element(0xB0, WIDTH_PX) + _element(0xBA, HEIGHT_PX))
    numbers = _element(0xD7, 1) + _element(0x73C5, 1) + _element(0x83, 1)
    track = _element(0xAE, numbers + _element(0x86, "V_MJPEG") + size)
    clusters = b""
    for number, time_ms in enumerate(times_ms):
        image = np.full((HEIGHT_PX, WIDTH_PX, 3), 20 + level_step * number, np.uint8)
        block = b"\x81\0\0\x80" + cv2.imencode(".jpg", image)[1].tobytes()
        clusters += _element(0x1F43B675, _element(0xE7, time_ms) + _element(0xA3, block))
    duration = struct.pack(">d", max(times_ms) - min(times_ms))
    info = _element(0x1549A966, _element(0x2AD7B1, 1_000_000) + _element(0x4489, duration))
    path.write_bytes(head + _element(0x18538067, info + _element(0x1654AE6B, track) + clusters))
    return path


def write_rotated(path: Path, degrees: int, frames: int = 10) -> Path:
    """MPEG-4, 10 Hz, stored with a white top left corner, to be shown rotated clockwise by degrees."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 10.0, (WIDTH_PX, HEIGHT_PX))
    for number in range(frames):
        writer.write(frame_with_white_corner(40 + 5 * number))
    writer.release()
    data = bytearray(path.read_bytes())
    header = data.find(b"tkhd")
    matrix = header + (56 if data[header + 4] == 1 else 44)
    cosine, sine = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    fixed = [value << 16 for value in (cosine, sine, 0, -sine, cosine, 0, 0, 0)]
    data[matrix : matrix + 36] = struct.pack(">9i", *fixed, 1 << 30)
    path.write_bytes(data)
    return path
