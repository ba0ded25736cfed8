"""Difference hash of pictures: the hashes of similar pictures differ in few of 64 bits.

Source: Krawetz, "Kind of Like That" (hackerfactor.com, 2013), where 10 bits or fewer mean a similar picture.
OpenCV's img_hash is in its contrib packages only.
"""

from __future__ import annotations

import cv2
import numpy as np

PICTURE_BITS = 6
"""Pictures that differ in so many bits or fewer show the same scene."""
OBJECT_BITS = 10
"""Crops that differ in so many bits or fewer show the same object at the same place."""


def difference_hash(gray: np.ndarray) -> int:
    """The hash of a (h, w) uint8 picture, 0..2**64 - 1: whether each of 8 x 9 cells is darker than the next
    one to its right. It ignores size, brightness and contrast."""
    cells = cv2.resize(gray, (9, 8), interpolation=cv2.INTER_AREA)
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big")


def differing_bits(one: int, others: np.ndarray) -> np.ndarray:
    """(n,) int64, the number of bits in which the hashes others, (n,) uint64, differ from one."""
    differences = np.bitwise_xor(others, np.uint64(one)).view(np.uint8).reshape(-1, 8)
    return np.unpackbits(differences, axis=1).sum(axis=1, dtype=np.int64)


class KnownPictures:
    """The hashes of the pictures that are kept, by reason.

    With a fixed camera all pictures are similar. A picture that was kept for an object is therefore a
    duplicate only if the object is similar, too.
    """

    def __init__(self) -> None:
        self._hashes: dict[str, np.ndarray] = {}

    def contains(self, reason: str, picture: int, crop: int) -> bool:
        """Whether such a picture is kept. picture, crop: hashes; crop: of its object, 0 without one."""
        known = self._hashes.get(reason)
        if known is None:
            return False
        similar = differing_bits(picture, known[:, 0].copy()) <= PICTURE_BITS
        similar &= differing_bits(crop, known[:, 1].copy()) <= OBJECT_BITS
        return bool(similar.any())

    def add(self, reason: str, picture: int, crop: int) -> None:
        """Remember a picture."""
        known = self._hashes.get(reason, np.zeros((0, 2), np.uint64))
        self._hashes[reason] = np.concatenate([known, np.array([[picture, crop]], np.uint64)])
