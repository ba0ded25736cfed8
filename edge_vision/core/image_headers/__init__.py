"""Parses size, channels and depth of a compressed image from its header.

OpenCV allocates the size that a header claims, which a few damaged bytes can turn into gigabytes. The header
is therefore checked first, and formats without a parser here are rejected.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from edge_vision.core.image_headers.base import ImageHeader, corrupt, unsupported
from edge_vision.core.image_headers.jpeg import jpeg_header
from edge_vision.core.image_headers.pnm import pam_header, pnm_header
from edge_vision.core.image_headers.tiff import tiff_header
from edge_vision.errors import ImageError

__all__ = ["ImageHeader", "is_still_image", "read_header", "unsupported"]

# By PNG colour type: grey, RGB, palette, grey with alpha, RGBA.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}
_PNG_DEPTHS = (1, 2, 4, 8, 16)
_PNG_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
_WEBP_ANIMATION = 0x02
_MAX_PNG_CHUNKS = 65536
# libpng decompresses these, up to 8 MB of each: 4 s per MB of the file.
_PNG_COMPRESSED = (b"zTXt", b"iTXt", b"iCCP")
_MAX_PNG_COMPRESSED_BYTES = 65536


def read_header(raw: np.ndarray) -> ImageHeader:
    """The header of a compressed image, (n,) uint8. Its width and height may be 0.

    Raises ImageError with reason corrupt_image or unsupported_encoding.
    """
    start = bytes(raw[:16])
    if (parse := _parser(start)) is not None:
        return parse(raw.data)
    if (name := _refused_format(start)) is not None:
        raise unsupported(name)
    if start[4:8] == b"ftyp":
        raise unsupported("AVIF, HEIF or a video")
    raise ImageError(
        "corrupt_image",
        f"expected JPEG, PNG, WebP, BMP, TIFF or PNM, got {raw.size} bytes of no known format",
    )


def is_still_image(raw: np.ndarray) -> bool:
    """Whether a file, (n,) uint8, starts like an image and not like a video, a GIF or anything else."""
    start = bytes(raw[:16])
    return _parser(start) is not None or _refused_format(start) not in (None, _GIF)


def _parser(start: bytes) -> Callable[[memoryview], ImageHeader] | None:
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return pnm_header
    if start[:4] == b"RIFF" and start[8:12] != b"WEBP":  # AVI.
        return None
    return next((parse for signature, parse in _PARSERS.items() if start.startswith(signature)), None)


def _refused_format(start: bytes) -> str | None:
    return next((name for signature, name in _REFUSED.items() if start.startswith(signature)), None)


def _png(data: memoryview) -> ImageHeader:
    head = bytes(data[8:33])
    if len(head) < 25 or head[:8] != b"\0\0\0\x0dIHDR":
        raise corrupt("PNG", "no IHDR chunk at its start")
    width_px, height_px = int.from_bytes(head[8:12], "big"), int.from_bytes(head[12:16], "big")
    bits, kind = head[16], head[17]
    if kind not in _PNG_CHANNELS or bits not in _PNG_DEPTHS:
        raise corrupt("PNG", f"colour type {kind} with {bits} bits")
    _check_png_chunks(data)
    return ImageHeader("PNG", width_px, height_px, _PNG_CHANNELS[kind], bits)


def _check_png_chunks(data: memoryview) -> None:
    """Raise ImageError if a chunk is longer than the file or belongs to an animation, if there is no IDAT, or
    if much text is compressed.

    OpenCV 4.11 allocates the claimed size of a chunk, reads past IEND until it finds IDAT, and crashes on a
    damaged animation.
    """
    at, pixels, compressed_bytes = 8, False, 0
    for _ in range(_MAX_PNG_CHUNKS):
        kind, size_bytes = bytes(data[at + 4 : at + 8]), int.from_bytes(data[at : at + 4], "big")
        if at >= len(data) or kind == b"IEND":
            if not pixels:
                raise corrupt("PNG", "no IDAT chunk")
            return
        pixels |= kind == b"IDAT"
        if kind in _PNG_ANIMATION:
            raise unsupported("an animated PNG")
        compressed_bytes += size_bytes if kind in _PNG_COMPRESSED else 0
        if compressed_bytes > _MAX_PNG_COMPRESSED_BYTES:
            raise corrupt("PNG", f"over {_MAX_PNG_COMPRESSED_BYTES} bytes of compressed text or profiles")
        at += 12 + size_bytes
        if at > len(data):
            raise ImageError(
                "corrupt_image", f"expected a whole PNG, got {len(data)} bytes: a chunk is cut off"
            )
    raise corrupt("PNG", f"more than {_MAX_PNG_CHUNKS} chunks")


def _webp(data: memoryview) -> ImageHeader:
    head = bytes(data[8:30])
    kind, body = head[4:8], head[12:]
    if len(body) < 10:
        raise corrupt("WebP", "an end within its first chunk")
    if kind == b"VP8 " and body[3:6] == b"\x9d\x01\x2a":
        width_px, height_px = (int.from_bytes(body[at : at + 2], "little") & 0x3FFF for at in (6, 8))
        return ImageHeader("WebP", width_px, height_px, 3, 8)
    if kind == b"VP8L" and body[0] == 0x2F:
        packed = int.from_bytes(body[1:5], "little")
        return ImageHeader("WebP", (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, 4, 8)
    if kind == b"VP8X":
        if body[0] & _WEBP_ANIMATION:
            raise unsupported("an animated WebP")
        width_px, height_px = (int.from_bytes(body[at : at + 3], "little") + 1 for at in (4, 7))
        return ImageHeader("WebP", width_px, height_px, 4, 8)
    raise corrupt("WebP", f"a first chunk {kind!r} without a key frame")


def _bmp(data: memoryview) -> ImageHeader:
    head = bytes(data[14:30])
    size = int.from_bytes(head[:4], "little")
    if len(head) == 16 and size == 12:
        width_px, height_px, bits = (int.from_bytes(head[at : at + 2], "little") for at in (4, 6, 10))
    elif len(head) == 16 and size >= 36:
        width_px, height_px = (int.from_bytes(head[at : at + 4], "little", signed=True) for at in (4, 8))
        bits = int.from_bytes(head[14:16], "little")
    else:
        raise corrupt("BMP", f"an information header of {size} bytes")
    # Rows of a negative height are stored from the top.
    return ImageHeader("BMP", max(0, width_px), abs(height_px), 1 if bits <= 8 else max(3, bits // 8), 8)


_PARSERS: dict[bytes, Callable[[memoryview], ImageHeader]] = {
    b"\xff\xd8\xff": jpeg_header,
    b"\x89PNG\r\n\x1a\n": _png,
    b"RIFF": _webp,
    b"BM": _bmp,
    b"II*\0": tiff_header,
    b"MM\0*": tiff_header,
    b"II+\0": tiff_header,
    b"MM\0+": tiff_header,
    b"P7\n": pam_header,
}
_GIF = "GIF"
_REFUSED = {
    b"GIF8": _GIF,
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"#?R": "Radiance HDR",
    b"v/1\x01": "OpenEXR",
    b"\x59\xa6\x6a\x95": "Sun raster",
    b"Pf": "PFM",
    b"PF": "PFM",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
}
