"""Headers of compressed images: their size, without decoding them; and whatever claims too much."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from model_cases import noise_image

from edge_vision.core.frame import check_size
from edge_vision.core.image_headers import read_header
from edge_vision.errors import ImageError

COLOR = noise_image(203, 117)
GRAY = COLOR[:, :, 0].copy()
DEEP = COLOR.astype(np.uint16) * 257
ALPHA = cv2.cvtColor(COLOR, cv2.COLOR_BGR2BGRA)
PROGRESSIVE = (cv2.IMWRITE_JPEG_PROGRESSIVE, 1)
LOSSY = (cv2.IMWRITE_WEBP_QUALITY, 80)


def encoded(kind: str, image: np.ndarray = COLOR, *options: int) -> bytes:
    return cv2.imencode(f".{kind}", image, list(options))[1].tobytes()


def header(data: bytes):
    return read_header(np.frombuffer(data, np.uint8))


def big_tiff(width_px: int, height_px: int) -> bytes:
    entries = [(256, 4, 1, width_px), (257, 16, 1, height_px), (258, 3, 3, 0x0008_0008_0008), (277, 3, 1, 3)]
    body = b"".join(struct.pack("<HHQQ", *entry) for entry in entries)
    return b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, len(entries)) + body


def tiff(*more: tuple[int, int, int, int], width_px: int = 203, height_px: int = 117) -> bytes:
    entries = [(256, 4, 1, width_px), (257, 4, 1, height_px), *more]
    body = b"".join(struct.pack(">HHII", *entry) for entry in entries)
    return b"MM\0*" + struct.pack(">IH", 8, len(entries)) + body


JPEG = encoded("jpg")
PNG = encoded("png")
EXTENDED_WEBP = b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\xca\0\0\x74\0\0"
PAM = b"P7\n# a camera\nWIDTH 203\nHEIGHT 117\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"
OS2_BMP = b"BM" + bytes(12) + struct.pack("<IHHHH", 12, 203, 117, 1, 24) + bytes(4)
# Name -> (the file, its format, channels, bits).
READ = {
    "jpeg": (JPEG, "JPEG", 3, 8),
    "progressive": (encoded("jpg", COLOR, *PROGRESSIVE), "JPEG", 3, 8),
    "grey jpeg": (encoded("jpg", GRAY), "JPEG", 1, 8),
    "jpeg with fill bytes": (JPEG[:2] + b"\xff" * 9 + JPEG[2:], "JPEG", 3, 8),
    "jpeg with bytes between segments": (JPEG[:20] + b"\0\1\2\xff\0" + JPEG[20:], "JPEG", 3, 8),
    "jpeg with many segments": (JPEG[:2] + b"\xff\xfe\0\x02" * 200 + JPEG[2:], "JPEG", 3, 8),
    "png": (PNG, "PNG", 3, 8),
    "grey png of 16 bits": (encoded("png", DEEP[:, :, 0].copy()), "PNG", 1, 16),
    "png with alpha": (encoded("png", ALPHA), "PNG", 4, 8),
    "lossless webp": (encoded("webp"), "WebP", 4, 8),
    "lossy webp": (encoded("webp", COLOR, *LOSSY), "WebP", 3, 8),
    "webp with alpha": (encoded("webp", ALPHA // 2, *LOSSY), "WebP", 4, 8),
    "extended webp": (EXTENDED_WEBP, "WebP", 4, 8),
    "bmp": (encoded("bmp"), "BMP", 3, 8),
    "bmp from the top": (
        encoded("bmp")[:22] + struct.pack("<i", -117) + encoded("bmp")[26:],
        "BMP",
        3,
        8,
    ),
    "bmp of OS/2": (OS2_BMP, "BMP", 3, 8),
    "tiff": (encoded("tiff"), "TIFF", 3, 8),
    "tiff of 16 bits": (encoded("tiff", DEEP), "TIFF", 3, 16),
    "tiff, big-endian": (tiff((258, 3, 1, 8 << 16)), "TIFF", 1, 8),
    "big tiff": (big_tiff(203, 117), "TIFF", 3, 8),
    "ppm": (encoded("ppm"), "PNM", 3, 8),
    "pgm": (encoded("pgm", GRAY), "PNM", 1, 8),
    "pgm with comments": (b"P5 # 9 9\n203#\n 117\r65535\n", "PNM", 1, 16),
    "pbm": (b"P4\n203 117\n", "PNM", 1, 1),
    "pam": (PAM, "PAM", 3, 8),
}


@pytest.mark.parametrize("name", READ)
def test_size_channels_and_depth_are_read(name):
    data, kind, channels, bits = READ[name]
    one = header(data)
    assert (one.width_px, one.height_px) == (203, 117)
    assert (one.kind, one.channels, one.bits) == (kind, channels, bits)
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if len(data) > 2000 else None
    assert decoded is None or decoded.shape[:2] == (117, 203)


@pytest.mark.parametrize("name", READ)
def test_a_header_that_is_cut_off_is_no_header(name):
    """Nor does any cut raise another error, or change the size."""
    data = READ[name][0]
    for length in range(0, min(len(data), 700), 3):
        try:
            one = header(data[:length])
            assert (one.width_px, one.height_px) == (203, 117)
        except ImageError as error:
            assert error.reason == "corrupt_image"
    with pytest.raises(ImageError):
        header(data[:10])


@pytest.mark.parametrize("marker", [0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, *range(0xC9, 0xCC), 0xCD, 0xCF])
def test_every_start_of_frame_has_a_size(marker):
    one = header(JPEG.replace(b"\xff\xc0", bytes([0xFF, marker]), 1))
    assert (one.width_px, one.height_px) == (203, 117)
    assert one.plain_jpeg == (marker in (0xC0, 0xC1))


def patched(data: bytes, at: int, value: bytes) -> bytes:
    return data[:at] + value + data[at + len(value) :]


AT_SOF = JPEG.index(b"\xff\xc0")
TWO_SIDES = struct.pack(">II", 30000, 30000)
BOMBS = {
    "jpeg": patched(JPEG, AT_SOF + 5, struct.pack(">HH", 30000, 30000)),
    "png": patched(PNG, 16, TWO_SIDES),
    "webp": patched(EXTENDED_WEBP, 24, b"\xff\xff\xff\xff\xff\xff"),
    "lossless webp": patched(encoded("webp"), 21, b"\xff\xff\xff\x0f"),
    "bmp": patched(encoded("bmp"), 18, struct.pack("<ii", 30000, -(2**31))),
    "ppm": b"P6 30000 30000 255 ",
    "pam": PAM.replace(b"203", b"30000").replace(b"117", b"30000"),
    "tiff": tiff(width_px=30000, height_px=2**32 - 1),
    "big tiff": big_tiff(2**31, 2**63),
    "small tiff of a large tile": tiff((322, 4, 1, 16384), (323, 4, 1, 16384)),
    "small tiff of a large strip": tiff((278, 4, 1, 2**31)),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_header_that_claims_gigabytes_is_too_large(name):
    one = header(BOMBS[name])
    width_px, height_px = (
        max(pair) for pair in zip((one.width_px, one.height_px), one.block_px, strict=True)
    )
    with pytest.raises(ImageError) as caught:
        check_size(width_px, height_px)
    assert caught.value.reason == "too_large"


NO_HEADERS = {
    "scan before frame": JPEG[:2] + b"\xff\xda\0\x08" + JPEG[2:],
    "two starts": b"\xff\xd8" + JPEG,
    "a segment of no length": JPEG[:2] + b"\xff\xe0\0\0" + JPEG[2:],
    "a million segments": JPEG[:2] + b"\xff\xfe\0\x02" * 10**6 + JPEG[2:],
    "only fill bytes": JPEG[:2] + b"\xff" * 10**6,
    "wrong length of the frame header": patched(JPEG, AT_SOF + 3, b"\x1e"),
    "png chunk of 2 GB": PNG[:33] + b"\x7f\xff\xff\0tEXt" + PNG[33:],
    "png without pixels before a chunk of 2 GB": PNG[:33] + b"\0\0\0\0IENDCRC \x7f\xff\xff\0tEXt" + PNG[33:],
    "png of a million chunks": PNG[:33] + b"\0\0\0\0tEXtCRC " * 10**5,
    "png that starts with another chunk": PNG[:8] + b"\0\0\0\0tEXtCRC " + PNG[8:],
    "png of colour type 5": patched(PNG, 25, b"\5"),
    "number of a million digits": b"P5 " + b"9" * 10**6,
    "no maximum": b"P5 4 4 0 ",
    "pam of a billion channels": PAM.replace(b"DEPTH 3", b"DEPTH 1000000000"),
    "tiff directory past the end": b"II*\0\xff\xff\xff\xff",
    "big tiff directory past all ends": b"II+\0\x08\0\0\0" + b"\xff" * 8,
    "tiff width of a wrong type": tiff((256, 5, 1, 8)),
    "riff, but no webp": b"RIFF\x20\0\0\0WAVEfmt \0\0\0\0" + bytes(20),
    "rubbish": b"hello" * 10,
}
REFUSED = {
    "GIF": b"GIF89a" + bytes(20),
    "JPEG 2000": encoded("jp2"),
    "Radiance HDR": b"#?RADIANCE\n",
    "OpenEXR": b"v/1\x01" + bytes(20),
    "Sun raster": encoded("ras"),
    "PFM": b"PF\n4 4\n-1\n",
    "AVIF": b"\0\0\0\x20ftypavif" + bytes(20),
    "JPEG XL": b"\xff\x0a" + bytes(20),
    "animated PNG": PNG[:33] + b"\0\0\0\x08acTL" + bytes(12) + PNG[33:],
    "animated WebP": patched(EXTENDED_WEBP, 20, b"\2"),
    "32 bits": tiff((258, 3, 1, 32 << 16)),
}


@pytest.mark.parametrize("name", NO_HEADERS)
def test_an_invalid_header_is_corrupt(name):
    with pytest.raises(ImageError) as caught:
        header(NO_HEADERS[name])
    assert caught.value.reason == "corrupt_image"


@pytest.mark.parametrize("kind", ["baseline", "progressive"])
def test_a_jpeg_with_many_empty_scans_is_refused(kind):
    """Each scan of 12 bytes costs a pass over all blocks."""
    data = READ["jpeg" if kind == "baseline" else "progressive"][0]
    at = data.rindex(b"\xff\xda")
    scan = data[at : at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")]
    assert header(data[:at] + scan * 50 + data[at:]).width_px == 203
    many = data[:at] + scan * 200 + data[at:]
    padding = (b"\xff" * 10**6, b"\0" * 10**6, (b"\xff\xfe\xff\xff" + bytes(65533)) * 15)
    bombs = [
        many,
        many + bytes(10**6),
        data[:at] + (scan + b"\0") * 200 + data[at:],
        data[:at] + (scan + b"\xff\0\xff\xd0\xff\x01") * 200 + data[at:],
        *(data[:at] + one + scan * 200 + data[at:] for one in padding),
    ]
    for bomb in bombs:
        with pytest.raises(ImageError, match="more than 100 scans") as caught:
            header(bomb)
        assert caught.value.reason == "corrupt_image"


def test_bytes_after_a_jpeg_are_not_scans():
    """As the video in a phone's motion photo, or a preview in an APP segment."""
    trailing = np.random.default_rng(0).integers(0, 256, 4_000_000, np.uint8).tobytes()
    assert header(JPEG + trailing + b"\xff\xda\0\2" * 200).width_px == 203
    assert header(JPEG[:2] + b"\xff\xe2\x03\x22" + b"\xff\xda\0\2" * 200 + JPEG[2:]).width_px == 203


def test_text_of_a_png_is_accepted_and_a_text_bomb_refused():
    """Each megabyte of the latter takes seconds to decode."""
    profile = png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(3000)))
    text = png_chunk(b"zTXt", b"x\0\0" + zlib.compress(b"a text " * 10**5))
    assert header(PNG[:33] + profile + text + PNG[33:]).width_px == 203
    assert header(PNG[:33] + png_chunk(b"tEXt", b"x\0" + bytes(10**6)) + PNG[33:]).width_px == 203
    for kind, start in ((b"zTXt", b"x\0\0"), (b"iTXt", b"x\0\1\0\0\0"), (b"iCCP", b"x\0\0")):
        bomb = png_chunk(kind, start + zlib.compress(bytes(7_900_000), 9)) * 10
        for at in (33, len(PNG) - 12):  # Before and after the pixels.
            with pytest.raises(ImageError, match="compressed text") as caught:
                header(PNG[:at] + bomb + PNG[at:])
            assert caught.value.reason == "corrupt_image"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("name", REFUSED)
def test_an_unsupported_format_is_named_in_the_error(name):
    with pytest.raises(ImageError, match=name) as caught:
        header(REFUSED[name])
    assert caught.value.reason == "unsupported_encoding"


STARTS = [JPEG[: AT_SOF + 30], PNG[:60], EXTENDED_WEBP, OS2_BMP, tiff(), big_tiff(5, 5), PAM, b"P6 4 4 255\n"]


@given(st.sampled_from(STARTS), st.integers(0, 40), st.binary(max_size=60))
@example(STARTS[0], 2, b"")
def test_any_bytes_after_a_signature_are_a_header_or_an_image_error(start, kept, rest):
    try:
        one = header(start[:kept] + rest)
    except ImageError as error:
        assert error.reason in ("corrupt_image", "unsupported_encoding")
    else:
        assert min(one.width_px, one.height_px, *one.block_px) >= 0 and one.channels >= 1
