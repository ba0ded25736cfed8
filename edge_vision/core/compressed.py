"""Compressed images with lazy decoding: the header is parsed on receipt, pixels are decoded on first access.

The gate decodes a plain JPEG at reduced size: 3.4 ms in place of 6.2 ms for 1920x1080 at quality 90 (360 KB)
on one thread. Most of that is Huffman decoding, which a smaller size does not save: an eighth in place of a
quarter takes 2.9 ms. A frame that passes the gate is decoded twice.

Exif orientation is ignored, as in image_transport: camera_info describes the pixels as the sensor delivers
them.
"""

from __future__ import annotations

import re
from pathlib import Path
from threading import Lock
from typing import Any

import cv2
import numpy as np

from edge_vision.core.frame import MAX_PIXELS, Frame, block_mean, check_size
from edge_vision.core.image_headers import ImageHeader, is_still_image, read_header, unsupported
from edge_vision.errors import ImageError

_COLOR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
# For a mosaic: one channel, 8 or 16 bits. Implies that orientation is ignored.
_AS_STORED = cv2.IMREAD_UNCHANGED
_REDUCED = {
    1: cv2.IMREAD_GRAYSCALE,
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}
_BAYER = re.compile(r"bayer_(rggb|bggr|gbrg|grbg)(?:8|16)")


class CompressedPicture:
    """A compressed image in memory with a parsed header. Thread-safe.

    data: the file, (n,) uint8. declared: its format. encoding: as decoded, bgr8, rgb8 or bayer_*.
    """

    __slots__ = ("_header", "_image", "_lock", "data", "declared", "encoding", "height_px", "width_px")

    def __init__(self, data: Any, declared: str = "", max_pixels: float = MAX_PIXELS) -> None:
        """data: any buffer with the file. declared: its format as in sensor_msgs/CompressedImage.

        Raises ImageError with reason zero_size, too_large, unsupported_encoding or corrupt_image.
        """
        self.data, self.declared = np.frombuffer(data, np.uint8), declared[:80]
        if self.data.size == 0:
            raise ImageError("zero_size", "expected a compressed image, got 0 bytes: check the camera driver")
        if "compresseddepth" in declared.lower():
            raise unsupported(f"the depth image '{self.declared}'")
        self._header = checked_header(self.data, max_pixels)
        self.width_px, self.height_px = self._header.width_px, self._header.height_px
        self.encoding = _decoded_encoding(declared, self._header)
        self._lock = Lock()
        self._image: np.ndarray | None = None

    @property
    def supports_reduction(self) -> bool:
        """Whether `gray` is available: for a plain JPEG that is not a mosaic."""
        return self._header.plain_jpeg and self.encoding == "bgr8"

    def image(self) -> np.ndarray:
        """(h, w, 3) uint8, or (h, w) uint8 or uint16 for a mosaic; decoded on the first call.

        Raises ImageError(corrupt_image).
        """
        with self._lock:
            if self._image is None:
                mosaic = self.encoding.startswith("bayer")
                image = self._decoded(_AS_STORED if mosaic else _COLOR, 1)
                dtype = np.uint16 if self.encoding.endswith("16") else np.uint8
                if image.dtype != dtype or image.ndim != (2 if mosaic else 3):
                    raise self._corrupt(f"decode to {image.shape} {image.dtype}, not {self.encoding}")
                self._image = image
            return self._image

    def gray(self, reduction: int) -> np.ndarray:
        """The luma at 1/1, 1/2, 1/4 or 1/8, (ceil(h/reduction), ceil(w/reduction)) uint8; not cached.

        Requires `supports_reduction`. libjpeg drops the high frequencies of each block, so there is no
        aliasing. Raises ImageError(corrupt_image).
        """
        return self._decoded(_REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION, reduction)

    def _decoded(self, flags: int, reduction: int) -> np.ndarray:
        try:
            image = cv2.imdecode(self.data, flags)
        except cv2.error as error:
            raise self._corrupt(f"cannot be decoded: {error.err}") from error
        if image is None:
            raise self._corrupt(f"are a damaged or unsupported {self._header.kind}")
        expected = -(-self.height_px // reduction), -(-self.width_px // reduction)
        if image.shape[:2] != expected:
            raise self._corrupt(
                f"decode to {image.shape[1]}x{image.shape[0]}, not {expected[1]}x{expected[0]}"
            )
        return image

    def _corrupt(self, what: str) -> ImageError:
        return ImageError("corrupt_image", f"{self.data.size} bytes of '{self.declared}' {what}")


def checked_header(raw: np.ndarray, max_pixels: float) -> ImageHeader:
    """The header of a file, (n,) uint8. Raises ImageError, also for one that is too large."""
    header = read_header(raw)
    check_size(header.width_px, header.height_px, max_pixels)
    block_width_px, block_height_px = header.block_px
    check_size(max(header.width_px, block_width_px), max(header.height_px, block_height_px), max_pixels)
    return header


def _decoded_encoding(declared: str, header: ImageHeader) -> str:
    """The encoding of the image that OpenCV decodes. Raises ImageError(unsupported_encoding).

    declared: as image_transport writes it, "SOURCE; CODEC compressed TARGET", "rgb8; jpeg compressed bgr8". A
    Bayer mosaic is compressed as a grey image. With the target rgb*, the sender swapped red and blue.
    """
    source, _, codec = declared.partition(";")
    source, target = source.strip(), codec.partition("compressed")[2].strip()
    if source.startswith("bayer_") and header.channels == 1:
        pattern = _BAYER.fullmatch(source)
        if pattern is None:
            raise unsupported(f"the encoding '{source[:80]}'")
        return f"bayer_{pattern[1]}{16 if header.bits > 8 else 8}"
    return "rgb8" if target.startswith("rgb") and header.channels >= 3 else "bgr8"


class CompressedFrame(Frame):
    """A Frame whose `image` is decoded on first access.

    Access to the image, or a conversion, may raise ImageError(corrupt_image).
    """

    __slots__ = ("source",)
    source: np.ndarray | CompressedPicture

    def __init__(
        self,
        image: np.ndarray | CompressedPicture,
        stamp_ns: int,
        frame_id: str,
        encoding: str = "bgr8",
        seq: int = 0,
        origin: Any = None,
    ) -> None:
        """image: an array, as passed by `dataclasses.replace`, makes this an ordinary frame."""
        given = (("source", image), ("stamp_ns", stamp_ns), ("frame_id", frame_id), ("encoding", encoding))
        for name, value in (*given, ("seq", seq), ("origin", origin)):
            object.__setattr__(self, name, value)

    @property
    def image(self) -> np.ndarray:
        return self.source.image() if isinstance(self.source, CompressedPicture) else self.source

    @property
    def width_px(self) -> int:
        return self.source.width_px if isinstance(self.source, CompressedPicture) else super().width_px

    @property
    def height_px(self) -> int:
        return self.source.height_px if isinstance(self.source, CompressedPicture) else super().height_px

    def small_gray(self, width_px: int) -> np.ndarray:
        """As `Frame.small_gray`, of the same size; a plain JPEG is decoded at reduced size.

        Also if the full image is decoded already: the two results differ by some grey levels, which would be
        detected as motion.
        """
        if not isinstance(self.source, CompressedPicture) or not self.source.supports_reduction:
            return super().small_gray(width_px)
        block = max(1, self.width_px // width_px)
        reduction = max(size for size in _REDUCED if size <= block)
        gray = self.source.gray(reduction)
        rows, columns = max(1, self.height_px // block), self.width_px // block
        if block % reduction == 0:
            return block_mean(gray, block // reduction)[:rows, :columns]
        # Complete blocks of the source, which may be fractions of pixels here.
        gray = gray[: round(rows * block / reduction), : round(columns * block / reduction)]
        # Below a ratio of 2, linear interpolation uses every pixel, in a fifth of the time.
        method = cv2.INTER_LINEAR if block < 2 * reduction else cv2.INTER_AREA
        return cv2.resize(gray, (columns, rows), interpolation=method)

    def with_header(self, stamp_ns: int, frame_id: str, seq: int) -> Frame:
        return CompressedFrame(self.source, stamp_ns, frame_id, self.encoding, seq)

    def __repr__(self) -> str:
        size = f"{self.width_px}x{self.height_px}"
        return (
            f"CompressedFrame({size}, stamp_ns={self.stamp_ns}, frame_id={self.frame_id!r}, seq={self.seq})"
        )


def compressed_frame(
    data: Any,
    declared: str,
    stamp_ns: int,
    frame_id: str,
    seq: int = 0,
    origin: Any = None,
    max_pixels: float = MAX_PIXELS,
) -> Frame:
    """The frame of a compressed image. Parameters and errors: `CompressedPicture`."""
    picture = CompressedPicture(data, declared, max_pixels)
    return CompressedFrame(picture, stamp_ns, frame_id, picture.encoding, seq, origin)


def check_still_image(path: Path) -> None:
    """Raise ImageError if a file is an image whose header is refused, but not if it is a video."""
    if path.stat().st_size and is_still_image(raw := np.memmap(path, np.uint8, "r")):
        checked_header(raw, MAX_PIXELS)
