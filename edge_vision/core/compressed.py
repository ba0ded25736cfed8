"""JPEG frames that are decoded when somebody wants their pixels, and at a small size where that is enough.

A gate that skips a frame then never pays for all of it: 1920x1080 at quality 90 (360 KB) takes 3.4 ms in
place of 6.2 ms on one thread. Most of that is reading the Huffman code of all coefficients, which no reduced
size spares: an eighth in place of a quarter takes 2.9 ms. A frame that passes pays both. Only what is certain
is read from the header; anything else is left to OpenCV, by a full decode at once.
"""

from __future__ import annotations

from threading import Lock
from typing import Any

import cv2
import numpy as np

from edge_vision.core.frame import MAX_SIDE_PX, Frame, block_mean, decode_compressed
from edge_vision.errors import ImageError

# Baseline and extended Huffman. A progressive file is decoded at once: its small sizes cost nearly as much.
_READ_HERE = (0xC0, 0xC1)
# Tables, application data and comments may stand before the frame header (ITU-T T.81, B.2.4).
_MAY_PRECEDE = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
_EXIF = 0xE1
_MAX_SEGMENTS = 64
_REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}


class Jpeg:
    """A JPEG file in memory whose header was understood. Any thread may use it."""

    __slots__ = ("_declared", "_image", "_lock", "_raw", "height_px", "width_px")

    def __init__(self, raw: np.ndarray, width_px: int, height_px: int, declared: str = "") -> None:
        """raw: (n,) uint8, the file. width_px, height_px: as `jpeg_size` reads them."""
        self.width_px, self.height_px = width_px, height_px
        self._raw, self._declared = raw, declared
        self._lock = Lock()
        self._image: np.ndarray | None = None

    def bgr(self) -> np.ndarray:
        """(h, w, 3) uint8, decoded at the first call. Raises ImageError(corrupt_image)."""
        with self._lock:
            if self._image is None:
                image = decode_compressed(self._raw, self._declared)
                self._check_size(image, 1)
                self._image = image
            return self._image

    def gray(self, reduction: int) -> np.ndarray:
        """The luma at 1/1, 1/2, 1/4 or 1/8, (ceil(h/reduction), ceil(w/reduction)) uint8; nothing is kept.

        libjpeg leaves out the high frequencies of each block of 8 pixels, so nothing aliases.
        Raises ImageError(corrupt_image).
        """
        try:
            gray = cv2.imdecode(self._raw, _REDUCED[reduction])
        except cv2.error as error:
            raise self._corrupt(f"cannot be decoded: {error.err}") from error
        if gray is None:
            raise self._corrupt("are no image that OpenCV can decode")
        self._check_size(gray, reduction)
        return gray

    def _check_size(self, image: np.ndarray, reduction: int) -> None:
        expected = -(-self.height_px // reduction), -(-self.width_px // reduction)
        if image.shape[:2] != expected:
            raise self._corrupt(
                f"decode to {image.shape[1]}x{image.shape[0]}, not {expected[1]}x{expected[0]}"
            )

    def _corrupt(self, what: str) -> ImageError:
        return ImageError("corrupt_image", f"{self._raw.size} bytes of '{self._declared}' {what}")


class CompressedFrame(Frame):
    """A frame that came as JPEG. All as in Frame, but `image` is decoded when it is first read.

    Reading it, and what is made of it, may raise ImageError(corrupt_image).
    """

    __slots__ = ("_source",)
    _source: np.ndarray | Jpeg

    def __init__(
        self,
        image: np.ndarray | Jpeg,
        stamp_ns: int,
        frame_id: str,
        encoding: str = "bgr8",
        seq: int = 0,
        origin: Any = None,
    ) -> None:
        """image: the JPEG; an array, as `dataclasses.replace` gives it, makes this an ordinary frame."""
        given = (("_source", image), ("stamp_ns", stamp_ns), ("frame_id", frame_id), ("encoding", encoding))
        for name, value in (*given, ("seq", seq), ("origin", origin)):
            object.__setattr__(self, name, value)

    @property
    def image(self) -> np.ndarray:
        """(h, w, 3) uint8, blue first."""
        return self._source.bgr() if isinstance(self._source, Jpeg) else self._source

    @property
    def width_px(self) -> int:
        return self._source.width_px if isinstance(self._source, Jpeg) else super().width_px

    @property
    def height_px(self) -> int:
        return self._source.height_px if isinstance(self._source, Jpeg) else super().height_px

    def small_gray(self, width_px: int) -> np.ndarray:
        """As `Frame.small_gray`, of the same size, from a decode at reduced size.

        Also where the full picture is there: two ways to the same size differ by some grey levels, which
        would look like motion.
        """
        if not isinstance(self._source, Jpeg):
            return super().small_gray(width_px)
        block = max(1, self.width_px // width_px)
        reduction = max(size for size in _REDUCED if size <= block)
        gray = self._source.gray(reduction)
        rows, columns = max(1, self.height_px // block), self.width_px // block
        if block % reduction == 0:
            return block_mean(gray, block // reduction)[:rows, :columns]
        # Whole blocks of the source, which need not be whole pixels here.
        gray = gray[: round(rows * block / reduction), : round(columns * block / reduction)]
        # Below twice the size, linear interpolation looks at every pixel, in a fifth of the time.
        way = cv2.INTER_LINEAR if block < 2 * reduction else cv2.INTER_AREA
        return cv2.resize(gray, (columns, rows), interpolation=way)

    def __repr__(self) -> str:
        size = f"{self.width_px}x{self.height_px}"
        return (
            f"CompressedFrame({size}, stamp_ns={self.stamp_ns}, frame_id={self.frame_id!r}, seq={self.seq})"
        )


def compressed_frame(
    data: Any, declared: str, stamp_ns: int, frame_id: str, seq: int = 0, origin: Any = None
) -> Frame:
    """The frame of a compressed image: a JPEG later, everything else now.

    data: any buffer with the file. declared: its format as the sender names it, for messages.
    Raises ImageError with reason corrupt_image or zero_size.
    """
    raw = np.frombuffer(data, np.uint8)
    size = jpeg_size(raw)
    if size is None:
        return Frame(decode_compressed(raw, declared), stamp_ns, frame_id, "bgr8", seq, origin)
    return CompressedFrame(Jpeg(raw, *size, declared), stamp_ns, frame_id, "bgr8", seq, origin)


def jpeg_size(raw: np.ndarray) -> tuple[int, int] | None:
    """Width and height in the header of a plain JPEG, (n,) uint8; None where anything in it is unusual.

    Unusual is what OpenCV might read in another way: Exif data (which may turn the picture), more than 8
    bits, CMYK, progressive, lossless or arithmetic coding, a height that comes later, a broken header.
    """
    data = raw.data
    if bytes(data[:2]) != b"\xff\xd8":
        return None
    at = 2
    for _ in range(_MAX_SEGMENTS):
        head = bytes(data[at : at + 10])
        if len(head) < 10 or head[0] != 0xFF:
            return None
        marker, length = head[1], int.from_bytes(head[2:4], "big")
        if marker in _READ_HERE:
            return _frame_size(bytes(data[at + 2 : at + 2 + length]), length)
        if marker not in _MAY_PRECEDE or length < 2 or (marker == _EXIF and head[4:8] == b"Exif"):
            return None
        at += 2 + length
    return None


def _frame_size(segment: bytes, length: int) -> tuple[int, int] | None:
    """Width and height of a frame header (ITU-T T.81, B.2.2): length, 8 bits, height, width, components."""
    if len(segment) < 8 or len(segment) != length or segment[2] != 8:
        return None
    height_px, width_px = int.from_bytes(segment[3:5], "big"), int.from_bytes(segment[5:7], "big")
    components = segment[7]
    if components not in (1, 3) or length != 8 + 3 * components:
        return None
    return (width_px, height_px) if 0 < width_px <= MAX_SIDE_PX and 0 < height_px <= MAX_SIDE_PX else None
