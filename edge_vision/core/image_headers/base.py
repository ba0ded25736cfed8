"""Result and errors of the header parsers."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vision.errors import ImageError


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of a compressed image.

    kind: the format, such as "JPEG". channels: as stored; 1 is grey, or a palette. bits: per channel.
    plain_jpeg: baseline or extended Huffman JPEG, grey or colour, which can be decoded at reduced size.
    block_px: width and height of the tile or strip that a decoder allocates in addition; (0, 0) if none.
    """

    kind: str
    width_px: int
    height_px: int
    channels: int
    bits: int
    plain_jpeg: bool = False
    block_px: tuple[int, int] = (0, 0)


def corrupt(kind: str, what: str) -> ImageError:
    """The error for an invalid header."""
    return ImageError("corrupt_image", f"expected a {kind} header, got {what}: check the sender")


def unsupported(what: str) -> ImageError:
    """The error for a valid image of an unsupported format."""
    return ImageError("unsupported_encoding", f"{what} is not supported: publish JPEG or PNG")
