"""What every header parser returns and raises."""

from __future__ import annotations

from dataclasses import dataclass

from edge_vision.errors import ImageError


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of a compressed image.

    kind: the format, such as "JPEG". channels: as stored; 1 is grey, or a palette. bits: per channel.
    plain_jpeg: baseline or extended Huffman JPEG, grey or colour, which decodes well at reduced size.
    block_px: width and height of the tile or strip that a decoder allocates in addition; (0, 0) for none.
    """

    kind: str
    width_px: int
    height_px: int
    channels: int
    bits: int
    plain_jpeg: bool = False
    block_px: tuple[int, int] = (0, 0)


def corrupt(kind: str, what: str) -> ImageError:
    """The error for a header that does not follow its own format."""
    return ImageError("corrupt_image", f"expected a {kind} header, got {what}: check the sender")


def unsupported(what: str) -> ImageError:
    """The error for an image that is valid, but is not decoded here."""
    return ImageError("unsupported_encoding", f"{what} is not decoded here: publish JPEG or PNG")
