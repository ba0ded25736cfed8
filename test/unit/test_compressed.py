"""Compressed frames: the same pixels as a full decode, later, and no image decoded that claims too many."""

from __future__ import annotations

import io
import threading
from array import array
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from model_cases import noise_image
from PIL import Image

from edge_vision.core import compressed
from edge_vision.core.compressed import CompressedFrame, compressed_frame
from edge_vision.core.frame import Frame
from edge_vision.errors import ImageError
from edge_vision.offline.media_files import read_image_file

COLOR = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
SCENE = cv2.GaussianBlur(noise_image(203, 117), (0, 0), 2)


def decode_compressed(data: bytes, declared: str = "") -> np.ndarray:
    return compressed_frame(data, declared, 0, "").bgr()


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


@pytest.mark.parametrize("read", ["image", "bgr", "gray"])
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
    assert decodes.flags == [COLOR]
    assert all(image is images[0] for image in images)
    lazy.bgr()
    assert decodes.flags == [COLOR]


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
    assert COLOR not in decodes.flags
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
    ignore = cv2.IMREAD_IGNORE_ORIENTATION
    two, four, eight = (getattr(cv2, f"IMREAD_REDUCED_GRAYSCALE_{n}") | ignore for n in (2, 4, 8))
    assert decodes.flags == [cv2.IMREAD_GRAYSCALE | ignore, two, two, four, four, eight, eight]


def test_small_gray_does_not_depend_on_earlier_access():
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


NEVER_REDUCED = {
    "progressive": jpeg(SCENE, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "png": cv2.imencode(".png", SCENE)[1].tobytes(),
    "bmp": cv2.imencode(".bmp", SCENE)[1].tobytes(),
    "webp": cv2.imencode(".webp", SCENE)[1].tobytes(),
    "tiff of 16 bits": cv2.imencode(".tiff", SCENE.astype(np.uint16) * 257)[1].tobytes(),
}


@pytest.mark.parametrize("name", NEVER_REDUCED)
def test_other_formats_are_decoded_later_and_once(decodes, name):
    later = frame(NEVER_REDUCED[name])
    assert (later.width_px, later.height_px, decodes.flags) == (203, 117, [])
    assert later.small_gray(50).shape == (29, 50)
    np.testing.assert_allclose(later.bgr().astype(int), SCENE, atol=0 if name != "progressive" else 40)
    assert decodes.flags == [COLOR]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_ignored_in_all_decodes(orientation):
    """As in image_transport: camera_info describes the pixels as they were sent."""
    turned = frame(with_segment(PLAIN, 0xE1, exif(orientation)))
    np.testing.assert_array_equal(turned.image, decode_compressed(PLAIN))
    np.testing.assert_array_equal(turned.small_gray(50), frame(PLAIN).small_gray(50))


def test_cmyk_is_converted():
    data = io.BytesIO()
    Image.fromarray(SCENE[..., ::-1].copy()).convert("CMYK").save(data, "JPEG", quality=95)
    np.testing.assert_allclose(frame(data.getvalue()).bgr().astype(int), SCENE, atol=40)


# The colour, blue first, that each pixel of this scene has, and where the pattern's letters are.
FLAT = {"b": 40, "g": 60, "r": 210}


def mosaic(pattern: str, dtype: type) -> np.ndarray:
    tile = np.array([FLAT[letter] for letter in pattern], dtype).reshape(2, 2)
    return np.tile(tile * (257 if dtype is np.uint16 else 1), (60, 80)).astype(dtype)


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize(("codec", "bits"), [("jpeg", 8), ("png", 8), ("png", 16), ("tiff", 16)])
def test_a_compressed_mosaic_is_read_in_colour(decodes, pattern, codec, bits):
    image = mosaic(pattern, np.uint16 if bits == 16 else np.uint8)
    data = cv2.imencode(f".{codec}", image)[1].tobytes()
    one = compressed_frame(data, f"bayer_{pattern}{bits}; {codec} compressed ", 5, "camera")
    assert one.encoding == f"bayer_{pattern}{bits}" and one.image.shape == (120, 160)
    np.testing.assert_allclose(one.bgr()[60, 80], list(FLAT.values()), atol=3)
    np.testing.assert_array_equal(one.small_gray(40), Frame(one.image, 0, "", one.encoding).small_gray(40))
    assert decodes.flags == [cv2.IMREAD_UNCHANGED]


def test_a_mosaic_of_16_bits_that_was_sent_as_jpeg_has_8():
    data = jpeg(mosaic("rggb", np.uint8))
    one = compressed_frame(data, "bayer_rggb16; jpeg compressed ", 5, "camera")
    assert one.encoding == "bayer_rggb8"
    np.testing.assert_allclose(one.bgr()[60, 80], list(FLAT.values()), atol=3)


@pytest.mark.parametrize(
    ("declared", "first"),
    [
        ("rgb8; jpeg compressed rgb8", "r"),
        ("rgb8; jpeg compressed bgr8", "b"),
        ("bgr8; jpeg compressed bgr8", "b"),
        ("bayer_rggb8; jpeg compressed bgr8", "b"),
        ("rgb8; jpeg compressed ", "b"),
        ("jpeg", "b"),
        ("", "b"),
    ],
)
def test_the_declared_target_says_which_channel_is_red(declared, first):
    decoded = np.full((48, 64, 3), (FLAT["b"], FLAT["g"], FLAT["r"]), np.uint8)
    sent = decoded[..., ::-1].copy() if first == "r" else decoded
    one = compressed_frame(jpeg(sent), declared, 5, "camera")
    np.testing.assert_allclose(one.bgr()[20, 20], list(FLAT.values()), atol=3)
    np.testing.assert_allclose(one.small_gray(16), Frame(decoded, 0, "").small_gray(16), atol=2)


@pytest.mark.parametrize("declared", ["16UC1; compressedDepth png", "32FC1; compressedDepth", "bayer_xyzw8;"])
def test_unsupported_formats_are_named_in_the_error(declared):
    with pytest.raises(ImageError, match=declared.partition(";")[0]) as caught:
        compressed_frame(jpeg(GRAY), declared, 5, "camera")
    assert caught.value.reason == "unsupported_encoding"


@pytest.mark.parametrize(
    "data,reason", [(b"", "zero_size"), (b"\0", "corrupt_image"), (PLAIN[:100], "corrupt_image")]
)
def test_invalid_data_is_rejected_on_receipt(data, reason):
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
    for read in (lambda: lazy.image, lambda: lazy.small_gray(50), lazy.bgr, lazy.gray):
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


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "bmp", "tiff", "ppm"])
def test_an_image_above_the_limit_is_refused_before_it_is_decoded(decodes, kind):
    data = cv2.imencode(f".{kind}", SCENE)[1].tobytes()
    assert compressed_frame(data, kind, 5, "camera", max_pixels=203 * 117).bgr().shape == SCENE.shape
    decodes.flags.clear()
    with pytest.raises(ImageError, match="max_image_megapixels") as caught:
        compressed_frame(data, kind, 5, "camera", max_pixels=203 * 117 - 1)
    assert caught.value.reason == "too_large" and decodes.flags == []


def test_a_file_of_the_user_is_checked_and_turned_upright(tmp_path):
    file = tmp_path / "photo.jpg"
    file.write_bytes(with_segment(PLAIN, 0xE1, exif(6)))
    assert read_image_file(file).shape == (203, 117, 3)
    for data, reason in ((PLAIN, "too_large"), (b"", "zero_size"), (b"GIF89a", "unsupported_encoding")):
        file.write_bytes(data)
        with pytest.raises(ImageError) as caught:
            read_image_file(file, max_pixels=1000)
        assert caught.value.reason == reason


@settings(max_examples=300)
@given(
    st.sampled_from([PLAIN, *NEVER_REDUCED.values()]),
    st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=8),
    st.booleans(),
)
@example(PLAIN, [(PLAIN.index(b"\xff\xc0") + 6, 118)], False)
def test_a_damaged_file_gives_pixels_of_its_size_or_an_image_error(whole, changes, in_header):
    data = bytearray(whole)
    for at, value in changes:
        data[at % (64 if in_header else len(data))] = value
    try:
        one = compressed_frame(bytes(data), "", 5, "camera", max_pixels=1e6)
        size = one.height_px, one.width_px
        assert size[0] * size[1] <= 1e6
        small = one.small_gray(max(1, one.width_px // 4))
        assert small.shape == (max(1, size[0] // 4), size[1] // 4) or size[1] < 4
        assert one.image.shape == (*size, 3)
    except ImageError as error:
        assert error.reason in ("corrupt_image", "zero_size", "too_large", "unsupported_encoding")
