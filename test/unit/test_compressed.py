"""JPEG frames: the same pixels as a full decode, later; and whatever is odd in a file is decoded at once."""

from __future__ import annotations

import threading
from array import array
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from model_cases import noise_image

from edge_vision.core import compressed
from edge_vision.core.compressed import CompressedFrame, compressed_frame, jpeg_size
from edge_vision.core.frame import Frame, decode_compressed
from edge_vision.errors import ImageError

SCENE = cv2.GaussianBlur(noise_image(203, 117), (0, 0), 2)


def jpeg(image: np.ndarray = SCENE, *options: int) -> bytes:
    return cv2.imencode(".jpg", image, list(options))[1].tobytes()


PLAIN = jpeg()


def frame(data: bytes, **header) -> Frame:
    return compressed_frame(data, "jpeg", 5, "camera", **header)


def with_segment(data: bytes, marker: int, payload: bytes) -> bytes:
    """The file with one more segment at its start."""
    return data[:2] + bytes([0xFF, marker]) + (len(payload) + 2).to_bytes(2, "big") + payload + data[2:]


def exif(orientation: int) -> bytes:
    """A whole APP1 payload with this one tag."""
    tag = (0x0112).to_bytes(2, "big") + (3).to_bytes(2, "big") + (1).to_bytes(4, "big")
    entry = tag + orientation.to_bytes(2, "big") + b"\0\0"
    return b"Exif\0\0MM\0*" + (8).to_bytes(4, "big") + (1).to_bytes(2, "big") + entry + bytes(4)


class Decodes:
    """Counts OpenCV's decodes by their flag."""

    def __init__(self, monkeypatch) -> None:
        self.flags: list[int] = []
        real = cv2.imdecode
        monkeypatch.setattr(cv2, "imdecode", lambda raw, flag: self.flags.append(flag) or real(raw, flag))


@pytest.fixture
def decodes(monkeypatch):
    return Decodes(monkeypatch)


@pytest.mark.parametrize("wrap", [bytes, bytearray, memoryview, lambda data: array("B", data)])
def test_nothing_is_decoded_before_pixels_are_wanted(decodes, wrap):
    origin = object()
    one = compressed_frame(wrap(PLAIN), "jpeg", 5, "camera", 7, origin)
    assert (one.width_px, one.height_px, one.encoding) == (203, 117, "bgr8")
    assert (one.stamp_ns, one.frame_id, one.seq) == (5, "camera", 7)
    assert one.origin is origin
    assert "203x117" in repr(one)
    assert isinstance(one, Frame) and decodes.flags == []


@pytest.mark.parametrize("read", ["image", "bgr", "rgb", "gray"])
def test_pixels_are_those_of_the_full_decode(read):
    full = Frame(decode_compressed(PLAIN), 5, "camera")
    lazy = frame(PLAIN)
    expected, actual = (getattr(one, read) for one in (full, lazy))
    if read != "image":
        expected, actual = expected(), actual()
    np.testing.assert_array_equal(actual, expected)


def test_it_is_decoded_once_and_by_one_thread(decodes):
    lazy = frame(jpeg(noise_image(1920, 1080)))
    start = threading.Barrier(4)
    images: list[np.ndarray] = []

    def read() -> None:
        start.wait()
        images.append(lazy.image)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert decodes.flags == [cv2.IMREAD_COLOR]
    assert all(image is images[0] for image in images)
    lazy.rgb()
    assert decodes.flags == [cv2.IMREAD_COLOR]


SIZES = [(203, 117), (1920, 1080), (640, 480), (64, 8), (17, 200), (8, 8), (1, 1)]
BLOCKS = [1, 2, 3, 4, 5, 6, 7, 8, 11, 16, 19, 24]


@pytest.mark.parametrize(
    ("size", "block"), [(s, b) for s in SIZES for b in BLOCKS if b <= s[0] and s[0] // (s[0] // b) == b]
)
def test_the_small_picture_is_that_of_a_raw_frame(decodes, size, block):
    """Of the same size, and alike: a decode at reduced size against the mean of the decoded picture."""
    # Detail of about a block: what is finer, the two ways take out differently.
    blurred = cv2.GaussianBlur(noise_image(*size), (0, 0), max(2.0, block))
    scene = cv2.normalize(blurred, None, 0, 255, cv2.NORM_MINMAX)
    width_px = size[0] // block
    data = jpeg(scene, cv2.IMWRITE_JPEG_QUALITY, 95)
    small = frame(data).small_gray(width_px)
    assert cv2.IMREAD_COLOR not in decodes.flags
    raw = Frame(decode_compressed(data), 5, "camera").small_gray(width_px)
    assert small.shape == raw.shape and small.dtype == raw.dtype
    if raw.size >= 100:
        # Each pixel is where the raw one is: half a pixel off would cost the likeness.
        assert np.corrcoef(small.ravel(), raw.ravel())[0, 1] > 0.98
        assert small.mean() == pytest.approx(raw.mean(), abs=2)


def test_the_reduction_is_the_greatest_that_leaves_enough(decodes):
    lazy = frame(jpeg(cv2.resize(SCENE, (1920, 1080))))
    for width_px in (1920, 960, 640, 480, 320, 240, 100):
        lazy.small_gray(width_px)
    two, four, eight = (getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{n}") for n in (2, 4, 8))
    assert decodes.flags == [cv2.IMREAD_GRAYSCALE, two, two, four, four, eight, eight]


def test_a_small_picture_does_not_depend_on_who_looked_before():
    one, other = frame(PLAIN), frame(PLAIN)
    _ = other.image
    np.testing.assert_array_equal(one.small_gray(50), other.small_gray(50))


def test_a_one_pixel_checkerboard_does_not_flicker():
    board = ((np.indices((480, 640)).sum(axis=0) % 2) * 200).astype(np.uint8)
    board = cv2.cvtColor(board, cv2.COLOR_GRAY2BGR)
    smalls = [
        frame(jpeg(np.roll(board, by, axis=1), cv2.IMWRITE_JPEG_QUALITY, 100)).small_gray(160)
        for by in (0, 1)
    ]
    assert np.ptp(np.stack(smalls)) <= 3


def test_a_copy_with_another_image_is_an_ordinary_frame(decodes):
    lazy = frame(PLAIN, seq=7)
    crop = replace(lazy, image=SCENE[10:40, 20:60], origin=None)
    assert (crop.width_px, crop.height_px, crop.stamp_ns, crop.seq) == (40, 30, 5, 7)
    np.testing.assert_array_equal(crop.small_gray(20), Frame(SCENE[10:40, 20:60], 5, "").small_gray(20))
    assert decodes.flags == []
    np.testing.assert_array_equal(replace(lazy, frame_id="other").image, decode_compressed(PLAIN))


GRAY = cv2.cvtColor(SCENE, cv2.COLOR_BGR2GRAY)
LAZY = {
    "plain": PLAIN,
    "grey": jpeg(GRAY),
    "no subsampling": jpeg(SCENE, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    "4:1:1": jpeg(SCENE, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_411),
    "restart markers": jpeg(SCENE, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "a comment": with_segment(PLAIN, 0xFE, b"hello"),
    "a profile of 60 KB": with_segment(PLAIN, 0xE2, bytes(60_000)),
    "XMP": with_segment(PLAIN, 0xE1, b"http://ns.adobe.com/xap/1.0/\0<x/>"),
    "bytes after the end": PLAIN + b"rubbish" * 10,
}


@pytest.mark.parametrize("name", LAZY)
def test_plain_files_are_decoded_later(name):
    lazy = frame(LAZY[name])
    assert isinstance(lazy, CompressedFrame)
    full = decode_compressed(LAZY[name])
    assert (lazy.height_px, lazy.width_px) == full.shape[:2]
    np.testing.assert_array_equal(lazy.image, full)
    np.testing.assert_allclose(lazy.small_gray(50), Frame(full, 0, "").small_gray(50), atol=12)


def as_if(at_sof: int, value: int, data: bytes = PLAIN) -> bytes:
    """The file with one byte of its frame header changed: 0xFF, marker, length, bits, height, ..."""
    at = data.index(b"\xff\xc0") + at_sof
    return data[:at] + bytes([value]) + data[at + 1 :]


AT_ONCE = {
    "progressive": jpeg(SCENE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": cv2.imencode(".png", SCENE)[1].tobytes(),
    "bmp": cv2.imencode(".bmp", SCENE)[1].tobytes(),
    "webp": cv2.imencode(".webp", SCENE)[1].tobytes(),
    **{f"exif orientation {i}": with_segment(PLAIN, 0xE1, exif(i)) for i in range(1, 9)},
}


@pytest.mark.parametrize("name", AT_ONCE)
def test_other_files_are_decoded_at_once(name):
    now = frame(AT_ONCE[name])
    assert type(now) is Frame
    np.testing.assert_array_equal(now.image, decode_compressed(AT_ONCE[name]))
    assert (now.stamp_ns, now.frame_id, now.encoding) == (5, "camera", "bgr8")


def test_exif_turns_the_picture_as_it_always_did():
    """Were orientation read by the full decode only, the gate would see the picture lying on its side."""
    assert frame(AT_ONCE["exif orientation 6"]).image.shape == (203, 117, 3)
    assert frame(AT_ONCE["exif orientation 1"]).image.shape == (117, 203, 3)


ODD = {
    "12 bits": as_if(4, 12),
    "lossless": as_if(1, 0xC3),
    "arithmetic": as_if(1, 0xC9),
    "hierarchical": as_if(1, 0xC5),
    "height comes later": as_if(5, 0, as_if(6, 0)),
    "no width": as_if(7, 0, as_if(8, 0)),
    "too wide": as_if(7, 0xFF),
    "four components": as_if(9, 4),
    "two components": as_if(9, 2),
    "wrong length of the frame header": as_if(3, 30),
    "a segment of no length": PLAIN[:2] + b"\xff\xe0\0\0" + PLAIN[2:],
    "a segment past the end": PLAIN[:2] + b"\xff\xe0\xff\xff" + PLAIN[2:60],
    "no segment": PLAIN[:2] + b"\0" + PLAIN[2:],
    "scan before frame": PLAIN[:2] + b"\xff\xda\0\x08" + PLAIN[2:],
    "two starts": b"\xff\xd8" + PLAIN,
    "many comments": with_segment(PLAIN[:2] + b"\xff\xfe\0\x02" * 70 + PLAIN[2:], 0xFE, b""),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_header_is_left_to_opencv(name):
    assert jpeg_size(np.frombuffer(ODD[name], np.uint8)) is None


@pytest.mark.parametrize("length", range(0, 700, 7))
def test_a_header_cut_anywhere_is_no_header(length):
    sos = PLAIN.index(b"\xff\xc0") + 19
    assert (jpeg_size(np.frombuffer(PLAIN[:length], np.uint8)) is None) == (length < sos)


@pytest.mark.parametrize(
    "data,reason", [(b"", "zero_size"), (b"\0", "corrupt_image"), (PLAIN[:100], "corrupt_image")]
)
def test_what_is_surely_no_image_is_refused_at_once(data, reason):
    with pytest.raises(ImageError) as caught:
        frame(data)
    assert caught.value.reason == reason


def outcome(read) -> str:
    try:
        read()
    except ImageError as error:
        return error.reason
    return "decoded"


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.9, 0.99])
def test_a_missing_end_is_grey_as_it_always_was(share):
    data = PLAIN[: int(len(PLAIN) * share)]
    lazy = frame(data)
    now = outcome(lambda: decode_compressed(data))
    assert outcome(lambda: lazy.image) == outcome(lambda: lazy.small_gray(50)) == now
    if now == "decoded":
        np.testing.assert_array_equal(lazy.image, decode_compressed(data))


def test_a_file_that_ends_with_its_header_is_refused_when_it_is_read():
    data = PLAIN[: PLAIN.index(b"\xff\xda")]
    lazy = frame(data)
    for read in (lambda: lazy.image, lambda: lazy.small_gray(50), lazy.bgr, lazy.rgb, lazy.gray):
        assert outcome(read) == "corrupt_image"


def test_a_decode_of_another_size_is_refused(monkeypatch):
    lazy = frame(PLAIN)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: np.zeros((10, 10, 3), np.uint8))
    for read in (lambda: lazy.image, lambda: lazy.small_gray(50)):
        assert outcome(read) == "corrupt_image"


def test_an_error_of_opencv_has_a_reason(monkeypatch):
    lazy = frame(PLAIN)

    def fail(*_):
        raise cv2.error("no memory")

    monkeypatch.setattr(compressed.cv2, "imdecode", fail)
    for read in (lambda: lazy.image, lambda: lazy.small_gray(50)):
        assert outcome(read) == "corrupt_image"


@given(st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.integers(0, 255)), min_size=1, max_size=8))
@example([(PLAIN.index(b"\xff\xc0") + 6, 118)])
def test_a_damaged_file_gives_pixels_of_its_size_or_an_image_error(changes):
    data = bytearray(PLAIN)
    for at, value in changes:
        data[at] = value
    try:
        one = frame(bytes(data))
        size = one.height_px, one.width_px
        small = one.small_gray(max(1, one.width_px // 4))
        assert small.shape == (max(1, size[0] // 4), size[1] // 4) or size[1] < 4
        assert one.image.shape == (*size, 3)
    except ImageError as error:
        assert error.reason in ("corrupt_image", "zero_size")


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_read_without_another_error(data, as_jpeg):
    raw = np.frombuffer(b"\xff\xd8" + data if as_jpeg else data, np.uint8)
    size = jpeg_size(raw)
    assert size is None or min(size) > 0
