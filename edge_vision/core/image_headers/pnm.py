"""Size and depth of Netpbm images: PBM, PGM, PPM (P1 to P6) and PAM (P7)."""

from __future__ import annotations

import re

from edge_vision.core.image_headers.base import ImageHeader, corrupt

_MAX_HEADER_BYTES = 65536
_NUMBER = re.compile(rb"(?:\s|#[^\r\n]*[\r\n])*(\d{1,10})(?=\D)")
_CHANNELS = {1: 1, 2: 1, 3: 3, 4: 1, 5: 1, 6: 3}
_BITMAPS = (1, 4)
_PAM_FIELDS = (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL")
_MAX_PAM_CHANNELS = 4


def pnm_header(data: memoryview) -> ImageHeader:
    """The header of a P1 to P6 file. Raises ImageError(corrupt_image)."""
    variant, text = data[1] - ord("0"), bytes(data[:_MAX_HEADER_BYTES])
    numbers, at = [], 2
    for _ in range(2 if variant in _BITMAPS else 3):
        found = _NUMBER.match(text, at)
        if found is None:
            raise corrupt("PNM", "no width, height and maximum value")
        numbers.append(int(found[1]))
        at = found.end() + 1
    bits = _bits(numbers[2]) if len(numbers) == 3 else 1
    return ImageHeader("PNM", numbers[0], numbers[1], _CHANNELS[variant], bits)


def pam_header(data: memoryview) -> ImageHeader:
    """The header of a P7 file. Raises ImageError(corrupt_image)."""
    text, end, _ = bytes(data[:_MAX_HEADER_BYTES]).partition(b"ENDHDR")
    found = {name: re.findall(rb"\s" + name + rb"\s+(\d{1,10})(?!\d)", text) for name in _PAM_FIELDS}
    if not end or not all(found.values()):
        raise corrupt("PAM", "no WIDTH, HEIGHT, DEPTH, MAXVAL and ENDHDR")
    width_px, height_px, channels, largest = (max(map(int, found[name])) for name in _PAM_FIELDS)
    if not 1 <= channels <= _MAX_PAM_CHANNELS:
        raise corrupt("PAM", f"DEPTH {channels}")
    return ImageHeader("PAM", width_px, height_px, channels, _bits(largest))


def _bits(largest: int) -> int:
    if not 0 < largest < 65536:
        raise corrupt("PNM", f"a maximum value of {largest}")
    return 8 if largest < 256 else 16
