"""The JPEG that browsers receive: passed on where possible, otherwise encoded, of a bounded size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edge_vision.core.frame import Frame
from edge_vision.errors import ImageError
from edge_vision.web.picture import MAX_PASSED_BYTES, jpeg_of, jpeg_of_compressed

DECLARED = "bgr8; jpeg compressed bgr8"


def picture(width_px: int, height_px: int) -> np.ndarray:
    """Blue left, red right."""
    image = np.zeros((height_px, width_px, 3), np.uint8)
    image[:, : width_px // 2, 0] = image[:, width_px // 2 :, 2] = 200
    return image


def encoded(image: np.ndarray, kind: str = ".jpg", quality: int = 80) -> bytes:
    return cv2.imencode(kind, image, (cv2.IMWRITE_JPEG_QUALITY, quality))[1].tobytes()


def check(data: bytes, width_px: int, height_px: int) -> None:
    """The JPEG has this size, and its left is blue."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (height_px, width_px, 3)
    left, right = image[height_px // 2, width_px // 4], image[height_px // 2, 3 * width_px // 4]
    assert left[0] > 150 > 60 > left[2] and right[2] > 150 > 60 > right[0]


def test_a_raw_image_is_encoded_and_a_wide_one_scaled_down() -> None:
    small = jpeg_of(Frame(picture(640, 480), 1, ""), 960)
    check(small.data, 640, 480)
    rgb = Frame(np.ascontiguousarray(picture(1920, 1080)[:, :, ::-1]), 1, "", "rgb8")
    large = jpeg_of(rgb, 960)
    check(large.data, 960, 540)
    assert (large.width_px, large.height_px, large.passed) == (1920, 1080, False)


def test_a_jpeg_is_passed_on_as_it_came() -> None:
    data = encoded(picture(640, 480))
    passed = jpeg_of_compressed(data, DECLARED, 960)
    assert passed.data == data and passed.passed and (passed.width_px, passed.height_px) == (640, 480)


@pytest.mark.parametrize("width_px", [1000, 1920, 3840, 7680])
def test_a_large_jpeg_is_scaled_down(width_px: int) -> None:
    height_px = width_px * 9 // 16 // 2 * 2
    made = jpeg_of_compressed(encoded(picture(width_px, height_px)), DECLARED, 960)
    assert not made.passed and (made.width_px, made.height_px) == (width_px, height_px)
    check(made.data, 960, round(height_px * 960 / width_px))


def test_a_heavy_jpeg_is_encoded_again() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    data = encoded(noise, quality=100)
    assert len(data) > MAX_PASSED_BYTES
    made = jpeg_of_compressed(data, DECLARED, 960)
    assert not made.passed and len(made.data) < len(data) / 2


def test_what_a_browser_would_show_differently_is_encoded_again() -> None:
    data = encoded(picture(640, 480))
    # Exif with orientation 6, a quarter turn.
    tiff = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    segment = b"Exif\0\0" + tiff
    turned = data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:]
    made = jpeg_of_compressed(turned, DECLARED, 960)
    assert not made.passed
    check(made.data, 640, 480)
    swapped = jpeg_of_compressed(encoded(picture(640, 480)[:, :, ::-1]), "rgb8; jpeg compressed rgb8", 960)
    assert not swapped.passed
    check(swapped.data, 640, 480)
    png = jpeg_of_compressed(encoded(picture(640, 480), ".png"), "bgr8; png compressed bgr8", 960)
    assert not png.passed
    check(png.data, 640, 480)


@pytest.mark.parametrize("data", [b"", b"nonsense", encoded(picture(64, 64))[:60]])
def test_a_damaged_image_is_an_error(data: bytes) -> None:
    with pytest.raises(ImageError):
        jpeg_of_compressed(data, DECLARED, 960)


def test_a_claimed_huge_size_is_refused_before_decoding() -> None:
    data = bytearray(encoded(picture(64, 64)))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xdc\xff\xdc"
    with pytest.raises(ImageError) as error:
        jpeg_of_compressed(bytes(data), DECLARED, 960)
    assert error.value.reason == "too_large"
