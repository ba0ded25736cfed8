"""Size, samples and tiles of the first image of a TIFF file (TIFF 6.0 and BigTIFF)."""

from __future__ import annotations

import struct

from edge_vision.core.image_headers.base import ImageHeader, corrupt, unsupported

_WIDTH, _HEIGHT, _BITS, _SAMPLES, _STRIP_ROWS, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 258, 277, 278, 322, 323
_WANTED = frozenset((_WIDTH, _HEIGHT, _BITS, _SAMPLES, _STRIP_ROWS, _TILE_WIDTH, _TILE_HEIGHT))
# Integer field types: BYTE, SHORT, LONG, SBYTE, SSHORT, SLONG, LONG8, SLONG8.
_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 16: "Q", 17: "q"}
_MAX_ENTRIES = 1024
_MAX_SAMPLES = 4
# One strip for the whole image.
_ALL_ROWS = 2**32 - 1


def tiff_header(data: memoryview) -> ImageHeader:
    """The first directory of a TIFF. Raises ImageError(corrupt_image or unsupported_encoding)."""
    try:
        fields = _fields(data)
        width_px, height_px = fields[_WIDTH], fields[_HEIGHT]
    except (struct.error, OverflowError):
        raise corrupt("TIFF", "an end within its directory") from None
    except KeyError:
        raise corrupt("TIFF", "a directory without width and height") from None
    samples, bits = fields.get(_SAMPLES, 1), fields.get(_BITS, 1)
    if bits > 16 or samples > _MAX_SAMPLES:
        raise unsupported(f"a TIFF of {samples} x {bits} bits per pixel")
    rows = fields.get(_STRIP_ROWS, 0)
    strip_rows = 0 if rows == _ALL_ROWS else rows
    block_px = fields.get(_TILE_WIDTH, width_px), fields.get(_TILE_HEIGHT, strip_rows)
    return ImageHeader("TIFF", width_px, height_px, samples, bits, block_px=block_px)


def _fields(data: memoryview) -> dict[int, int]:
    """The wanted tags with their values, the largest one where there are several."""
    order = "<" if bytes(data[:2]) == b"II" else ">"
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset, count, entry = ("Q", "Q", "HHQ") if big else ("I", "H", "HHI")
    (at,) = struct.unpack_from(order + offset, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count, data, at)
    if entries > _MAX_ENTRIES:
        raise corrupt("TIFF", f"a directory of {entries} entries")
    at += struct.calcsize(order + count)
    size = struct.calcsize(order + entry) + struct.calcsize(order + offset)
    fields: dict[int, int] = {}
    for position in range(at, at + entries * size, size):
        tag, kind, values = struct.unpack_from(order + entry, data, position)
        if tag in _WANTED:
            value_at = position + struct.calcsize(order + entry)
            numbers = _values(data, order, offset, kind, values, value_at)
            fields[tag] = max(fields.get(tag, 0), *numbers)
    return fields


def _values(data: memoryview, order: str, offset: str, kind: int, count: int, at: int) -> tuple[int, ...]:
    """The values of one entry, stored in the offset field if they are small enough."""
    if kind not in _NUMBERS or not 0 < count <= _MAX_SAMPLES:
        raise corrupt("TIFF", f"a size or sample field of type {kind} with {count} values")
    layout = f"{order}{count}{_NUMBERS[kind]}"
    if struct.calcsize(layout) > struct.calcsize(order + offset):
        (at,) = struct.unpack_from(order + offset, data, at)
    return struct.unpack_from(layout, data, at)
