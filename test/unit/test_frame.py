"""Every encoding through view_image and Frame, against numpy's and OpenCV's own reading of the same bytes."""

from __future__ import annotations

from array import array

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_cases import noise_image

from edge_vision.core.compressed import compressed_frame
from edge_vision.core.frame import ENCODINGS, MAX_SIDE_PX, Frame, view_image
from edge_vision.errors import ImageError

WIDTH, HEIGHT = 46, 34
BGR = noise_image(WIDTH, HEIGHT)
GRAY = cv2.cvtColor(BGR, cv2.COLOR_BGR2GRAY)
BAYER = [name for name in ENCODINGS if name.startswith("bayer_")]
EIGHT_BIT = [name for name, spec in ENCODINGS.items() if spec.dtype == "u1"]
SIXTEEN_BIT = [name for name, spec in ENCODINGS.items() if spec.dtype == "u2"]


def decode_compressed(data: bytes, declared: str = "") -> np.ndarray:
    return compressed_frame(data, declared, 0, "").bgr()


def mosaic(pattern: str, bgr: np.ndarray) -> np.ndarray:
    """(h, w) what a sensor sees whose first two rows are this pattern, as in "rggb"."""
    plane = np.empty(bgr.shape[:2], bgr.dtype)
    for at, color in enumerate(pattern):
        plane[at // 2 :: 2, at % 2 :: 2] = bgr[at // 2 :: 2, at % 2 :: 2, "bgr".index(color)]
    return plane


def yuv420(bgr: np.ndarray, v_first: bool) -> np.ndarray:
    """(h * 3/2, w) NV12, or NV21 with v_first, from OpenCV's planar I420."""
    height, width = bgr.shape[:2]
    flat = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV_I420).reshape(-1)
    luma, chroma = flat[: height * width], flat[height * width :].reshape(2, -1)
    order = chroma[::-1] if v_first else chroma
    return np.concatenate([luma, order.T.reshape(-1)]).reshape(height * 3 // 2, width)


def yuv422(bgr: np.ndarray, luma_at: int) -> np.ndarray:
    """(h, w, 2) YUYV (luma_at 0) or UYVY (1)."""
    yuv = cv2.cvtColor(bgr, cv2.COLOR_BGR2YUV)
    # OpenCV's full range U and V are not those of its YUY2, whose luma starts at 16; any bytes will do here.
    out = np.empty((*bgr.shape[:2], 2), np.uint8)
    out[:, :, luma_at] = yuv[:, :, 0]
    out[:, 0::2, 1 - luma_at] = yuv[:, 0::2, 1]
    out[:, 1::2, 1 - luma_at] = yuv[:, 0::2, 2]
    return out


def stored(encoding: str, bgr: np.ndarray = BGR) -> np.ndarray:
    """The picture as the encoding stores it."""
    spec = ENCODINGS[encoding]
    wide = bgr.astype(np.uint16) * 257 if spec.dtype == "u2" else bgr
    if spec.bayer:
        return mosaic(encoding[6:10], wide)
    if spec.rows != 1.0:
        return yuv420(bgr, v_first=encoding == "nv21")
    if spec.plane is not None:
        return yuv422(bgr, spec.plane)
    if spec.channels == 1:
        return cv2.cvtColor(wide, cv2.COLOR_BGR2GRAY)
    if spec.channels == 4:
        return cv2.cvtColor(wide, cv2.COLOR_BGR2RGBA if encoding == "rgba8" else cv2.COLOR_BGR2BGRA)
    return wide[:, :, ::-1].copy() if encoding.startswith("rgb") else wide


def expected_bgr(encoding: str) -> np.ndarray:
    """What OpenCV makes of the same bytes with its own conversion; the mosaics have a test of their own."""
    image, spec = stored(encoding), ENCODINGS[encoding]
    codes = {
        "nv12": cv2.COLOR_YUV2BGR_NV12,
        "nv21": cv2.COLOR_YUV2BGR_NV21,
        "uyvy": cv2.COLOR_YUV2BGR_UYVY,
        "yuv422": cv2.COLOR_YUV2BGR_UYVY,
        "yuyv": cv2.COLOR_YUV2BGR_YUY2,
        "yuv422_yuy2": cv2.COLOR_YUV2BGR_YUY2,
    }
    if encoding in codes:
        return cv2.cvtColor(image, codes[encoding])
    return cv2.cvtColor(GRAY, cv2.COLOR_GRAY2BGR) if spec.channels == 1 else BGR


def message_bytes(image: np.ndarray, padding: int, big_endian: bool = False) -> tuple[bytes, int]:
    """Rows with padding after each, as a driver may send them, and the step."""
    order = ">" if big_endian else "<"
    rows = image.astype(image.dtype.newbyteorder(order)).reshape(image.shape[0], -1)
    raw = rows.view(np.uint8).reshape(image.shape[0], -1)
    padded = np.concatenate([raw, np.full((len(raw), padding), 0xA5, np.uint8)], axis=1)
    return padded.tobytes(), padded.shape[1]


def read(encoding: str, padding: int = 0, big_endian: bool = False, wrap=bytes) -> Frame:
    data, step = message_bytes(stored(encoding), padding, big_endian)
    return Frame(view_image(wrap(data), WIDTH, HEIGHT, step, encoding, big_endian), 1, "camera", encoding)


@pytest.mark.parametrize("padding", [0, 1, 2, 7])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_bytes_are_read_as_stored(encoding, padding):
    frame = read(encoding, padding)
    np.testing.assert_array_equal(frame.image, stored(encoding))
    assert (frame.width_px, frame.height_px) == (WIDTH, HEIGHT)
    assert frame.image.dtype == (np.uint8 if encoding in EIGHT_BIT else np.uint16)


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
@pytest.mark.parametrize("encoding", SIXTEEN_BIT)
def test_big_endian_16_bit(encoding, padding):
    frame = read(encoding, padding, big_endian=True)
    np.testing.assert_array_equal(frame.image, stored(encoding))
    assert frame.image.dtype.isnative


def test_the_endian_flag_means_nothing_for_bytes():
    np.testing.assert_array_equal(read("bgr8", big_endian=True).image, BGR)


@pytest.mark.parametrize("padding", [0, 1, 6])
@pytest.mark.parametrize("encoding", [e for e in ENCODINGS if e not in BAYER])
def test_bgr_and_gray(encoding, padding):
    frame = read(encoding, padding)
    expected = expected_bgr(encoding)
    # 8 bits out of 16 may round the luma differently by one.
    near = 0 if encoding in EIGHT_BIT else 1
    assert_near(frame.bgr(), expected, near)
    spec = ENCODINGS[encoding]
    if spec.plane is not None:
        expected_gray = stored(encoding)[:, :, spec.plane]
    elif spec.rows != 1.0:
        expected_gray = stored(encoding)[:HEIGHT]
    else:
        expected_gray = GRAY
    assert_near(frame.gray(), expected_gray, near)
    # Halving colours before they become grey rounds twice.
    assert_near(frame.small_gray(WIDTH // 2), block_mean(expected_gray, 2), 2)
    assert_near(frame.small_gray(WIDTH // 3), block_mean(expected_gray, 3), near + 1)


def block_mean(image: np.ndarray, block: int) -> np.ndarray:
    """The mean of each whole block x block pixels, by plain arithmetic."""
    rows, columns = image.shape[0] // block, image.shape[1] // block
    whole = image[: rows * block, : columns * block].astype(float)
    means = whole.reshape(rows, block, columns, block, -1).mean(axis=(1, 3)).squeeze()
    return np.round(means).astype(np.uint8)


@pytest.mark.parametrize("encoding", ["bgr8", "rgb8", "bgra8", "rgba8"])
@pytest.mark.parametrize("block", [4, 8])
def test_colour_in_blocks_of_four_is_the_mean_of_every_other_row(encoding, block):
    bgr = noise_image(67, 45)
    data, step = message_bytes(stored(encoding, bgr), 3)
    rows, columns = 45 // block, 67 // block
    small = Frame(view_image(data, 67, 45, step, encoding), 0, "", encoding).small_gray(columns)
    gray = cv2.cvtColor(bgr, cv2.COLOR_BGR2GRAY)[: rows * block, : columns * block]
    means = gray.reshape(rows, block, columns, block)[:, ::2].mean(axis=(1, 3))
    assert_near(small, np.round(means).astype(np.uint8), 2)


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "uyvy", "nv12", "rgb16"])
@pytest.mark.parametrize("width_px", [160, 107, 320])
def test_a_one_pixel_checkerboard_is_an_even_grey_wherever_it_lies(encoding, width_px):
    """A texture that is finer than the small pixels must not become a pattern that moves with it."""
    board = ((np.indices((480, 640)).sum(axis=0) % 2) * 200 + 20).astype(np.uint8)
    smalls = []
    for by in (0, 1):
        picture = stored(encoding, cv2.cvtColor(np.roll(board, by, axis=1), cv2.COLOR_GRAY2BGR))
        data, step = message_bytes(picture, 0)
        frame = Frame(view_image(data, 640, 480, step, encoding), 0, "", encoding)
        smalls.append(frame.small_gray(width_px))
    # Blocks of an odd number of pixels have one more of one colour.
    block = 640 // width_px
    assert np.ptp(np.stack(smalls)) <= 200 / block**2 * (block % 2) + 3


def assert_near(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    np.testing.assert_allclose(actual.astype(int), expected.astype(int), atol=tolerance)


@pytest.mark.parametrize("encoding", BAYER)
def test_a_mosaic_gets_its_colours_back(encoding):
    """Flat patches of pure colours: a pattern taken for another one swaps red and blue, or finds no green."""
    patches = np.zeros((24, 72, 3), np.uint8)
    for at, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255)]):
        patches[:, at * 24 : (at + 1) * 24] = color
    data, step = message_bytes(stored(encoding, patches), 0)
    frame = Frame(view_image(data, 72, 24, step, encoding), 0, "", encoding)
    inner = frame.bgr().reshape(24, 3, 24, 3)[4:-4, :, 4:-4].astype(int)
    np.testing.assert_array_equal(inner, patches.reshape(24, 3, 24, 3)[4:-4, :, 4:-4])
    assert frame.gray()[12, 12] == cv2.cvtColor(patches, cv2.COLOR_BGR2GRAY)[12, 12]


@pytest.mark.parametrize("encoding", BAYER)
def test_a_mosaic_of_a_picture_is_that_picture_again(encoding):
    smooth = cv2.GaussianBlur(BGR, (0, 0), 4)
    data, step = message_bytes(stored(encoding, smooth), 3)
    frame = Frame(view_image(data, WIDTH, HEIGHT, step, encoding), 0, "", encoding)
    error = np.abs(frame.bgr()[2:-2, 2:-2].astype(int) - smooth[2:-2, 2:-2])
    assert error.mean() < 2
    means = block_mean(smooth, WIDTH // 12).mean(axis=2)
    assert np.abs(frame.small_gray(12).astype(int) - means).mean() < 3


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("size", [(2, 2), (4, 2), (2, 6)])
def test_tiny_images_do_not_break_the_conversions(encoding, size):
    width, height = size
    image = stored(encoding, noise_image(width, height))
    data, step = message_bytes(image, 1)
    frame = Frame(view_image(data, width, height, step, encoding), 0, "", encoding)
    assert frame.bgr().shape == (height, width, 3)
    assert frame.gray().shape == (height, width)
    assert frame.small_gray(1).shape == (max(1, round(height / width)), 1)


@pytest.mark.parametrize("encoding", ["bgr8", "mono8", "rgb16", "mono16", "bgra8"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5), (5, 1)])
def test_one_pixel_wide_or_high(encoding, size):
    width, height = size
    image = stored(encoding, np.full((height, width, 3), 77, np.uint8))
    data, step = message_bytes(image, 5)
    frame = Frame(view_image(data, width, height, step, encoding), 0, "", encoding)
    assert (frame.bgr() == 77).all() and frame.bgr().shape == (height, width, 3)
    assert frame.gray().shape == (height, width)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: array("B", data)])
@pytest.mark.parametrize("padding", [0, 5])
def test_the_image_is_a_view_of_the_message(wrap, padding):
    data, step = message_bytes(BGR, padding)
    buffer = wrap(data)
    image = view_image(buffer, WIDTH, HEIGHT, step, "bgr8")
    assert np.shares_memory(image, np.frombuffer(buffer, np.uint8))
    assert np.shares_memory(Frame(image, 0, "").bgr(), image)


@pytest.mark.parametrize("encoding", EIGHT_BIT)
def test_no_copy_of_any_8_bit_encoding(encoding):
    data, step = message_bytes(stored(encoding), 0)
    image = view_image(data, WIDTH, HEIGHT, step, encoding)
    assert np.shares_memory(image, np.frombuffer(data, np.uint8))


def test_no_copy_of_the_luma_and_of_bgr():
    for encoding in ("mono8", "uyvy", "yuyv", "nv12", "nv21"):
        frame = read(encoding)
        assert np.shares_memory(frame.gray(), frame.image)
    frame = read("bgr8")
    assert np.shares_memory(frame.bgr(), frame.image)


def test_no_copy_of_native_16_bit_on_whole_samples():
    data, step = message_bytes(stored("mono16"), 2)
    raw = np.frombuffer(data, np.uint8)
    assert np.shares_memory(view_image(data, WIDTH, HEIGHT, step, "mono16"), raw)
    assert not np.shares_memory(view_image(data, WIDTH, HEIGHT, step, "mono16", is_bigendian=True), raw)


def test_the_last_row_may_come_without_its_padding():
    data, step = message_bytes(BGR, 9)
    np.testing.assert_array_equal(view_image(data[:-9], WIDTH, HEIGHT, step, "bgr8"), BGR)


def test_16_bit_full_scale_is_8_bit_full_scale():
    image = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert Frame(image, 0, "", "mono16").gray().tolist() == [[0, 1, 128, 255]]


BAD = [
    # width, height, step, encoding, bytes, reason
    (0, 34, 0, "bgr8", 0, "zero_size"),
    (46, 0, 138, "bgr8", 0, "zero_size"),
    (0, 0, 0, "", 0, "zero_size"),
    (46, 34, 138, "", 4692, "unsupported_encoding"),
    (46, 34, 138, "BGR8", 4692, "unsupported_encoding"),
    (46, 34, 138, "32FC1", 10000, "unsupported_encoding"),
    (46, 34, 137, "bgr8", 4692, "bad_step"),
    (46, 34, 0, "bgr8", 4692, "bad_step"),
    (46, 34, 46, "mono16", 4692, "bad_step"),
    (46, 34, 138, "bgr8", 4691, "truncated"),
    (46, 34, 138, "bgr8", 0, "truncated"),
    (46, 34, 140, "bgr8", 4692, "truncated"),
    (46, 34, 2**32 - 1, "bgr8", 4692, "truncated"),
    (46, 34, 46, "nv12", 46 * 34, "truncated"),
    (MAX_SIDE_PX + 1, 1, 10**6, "mono8", 10**6, "too_large"),
    (1, 2**32 - 1, 1, "mono8", 100, "too_large"),
    (45, 34, 45, "nv12", 10000, "bad_size"),
    (46, 33, 46, "nv21", 10000, "bad_size"),
    (45, 34, 90, "uyvy", 10000, "bad_size"),
]


@pytest.mark.parametrize("width,height,step,encoding,size,reason", BAD)
def test_bad_images_are_refused_with_their_reason(width, height, step, encoding, size, reason):
    with pytest.raises(ImageError) as caught:
        view_image(bytes(size), width, height, step, encoding)
    assert caught.value.reason == reason
    assert len(str(caught.value)) > 20


@given(
    st.integers(0, 40), st.integers(0, 40), st.integers(0, 200), st.sampled_from(["", *ENCODINGS]),
    st.integers(0, 6000), st.booleans(),
)  # fmt: skip
def test_any_header_gives_an_image_or_an_image_error(width, height, step, encoding, size, big_endian):
    try:
        image = view_image(bytes(size), width, height, step, encoding, big_endian)
    except ImageError:
        return
    frame = Frame(image, 0, "", encoding)
    assert (frame.width_px, frame.height_px) == (width, height)


@pytest.mark.parametrize("kind", [".jpg", ".png", ".bmp", ".tiff"])
def test_compressed_images(kind):
    data = cv2.imencode(kind, cv2.GaussianBlur(BGR, (0, 0), 2))[1].tobytes()
    image = decode_compressed(data, kind)
    assert image.shape == BGR.shape and image.dtype == np.uint8
    assert np.abs(image.astype(int) - cv2.GaussianBlur(BGR, (0, 0), 2)).mean() < 4


def test_a_grey_or_16_bit_png_becomes_bgr8():
    for image in (GRAY, GRAY.astype(np.uint16) * 257):
        decoded = decode_compressed(cv2.imencode(".png", image)[1].tobytes())
        np.testing.assert_array_equal(decoded, cv2.cvtColor(GRAY, cv2.COLOR_GRAY2BGR))


JPEG = cv2.imencode(".jpg", BGR)[1].tobytes()


@pytest.mark.parametrize(
    "data,reason",
    [
        (b"", "zero_size"),
        (b"\x00", "corrupt_image"),
        (b"\xff\xd8\xff\xe0", "corrupt_image"),
        (JPEG[2:], "corrupt_image"),
        (b"not an image at all" * 50, "corrupt_image"),
        (cv2.imencode(".png", BGR)[1].tobytes()[:40], "corrupt_image"),
    ],
)
def test_corrupt_compressed_images(data, reason):
    with pytest.raises(ImageError) as caught:
        decode_compressed(data, "jpeg")
    assert caught.value.reason == reason
