"""The JPEG of a frame for the browser: passed on as it came where possible, otherwise encoded once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from edge_vision.core.compressed import CompressedPicture
from edge_vision.core.frame import Frame
from edge_vision.errors import ImageError

MAX_PASSED_BYTES = 512_000
JPEG_QUALITY = 75
# Exif turns a picture in the browser, but not for the detector: its boxes would lie elsewhere.
_HEAD_BYTES = 65_536
_REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}


@dataclass(frozen=True, slots=True)
class Jpeg:
    """A JPEG, and the size of the image that it was made from. passed: not encoded here."""

    data: bytes
    width_px: int
    height_px: int
    passed: bool


def jpeg_of(frame: Frame, max_width_px: int) -> Jpeg:
    """The JPEG of a raw image, at most this wide. Raises ImageError."""
    return _encoded(frame.bgr(), frame.width_px, frame.height_px, max_width_px)


def jpeg_of_compressed(data: Any, declared: str, max_width_px: int) -> Jpeg:
    """The JPEG of a compressed image. data: any buffer. declared: its format, as in CompressedImage.

    Raises ImageError, as CompressedPicture does.
    """
    picture = CompressedPicture(data, declared)
    size = picture.width_px, picture.height_px
    raw = np.frombuffer(data, np.uint8)
    if picture.supports_reduction:
        fits = picture.width_px <= max_width_px and raw.size <= MAX_PASSED_BYTES
        if fits and b"Exif\0" not in raw[:_HEAD_BYTES].tobytes():
            return Jpeg(raw.tobytes(), *size, True)
        reduction = max((n for n in _REDUCED if picture.width_px >= n * max_width_px), default=1)
        if reduction > 1:
            image = cv2.imdecode(raw, _REDUCED[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)
            if image is None:
                raise ImageError(
                    "corrupt_image", f"expected a JPEG, got {raw.size} bytes that cannot be decoded"
                )
            return _encoded(image, *size, max_width_px)
    return _encoded(Frame(picture.image(), 0, "", picture.encoding).bgr(), *size, max_width_px)


def _encoded(bgr: np.ndarray, width_px: int, height_px: int, max_width_px: int) -> Jpeg:
    if bgr.shape[1] > max_width_px:
        rows = max(1, round(bgr.shape[0] * max_width_px / bgr.shape[1]))
        bgr = cv2.resize(bgr, (max_width_px, rows), interpolation=cv2.INTER_AREA)
    done, data = cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    if not done:
        raise ImageError("corrupt_image", f"an image of {width_px}x{height_px} cannot be encoded as JPEG")
    return Jpeg(data.tobytes(), width_px, height_px, False)
